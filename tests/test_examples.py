"""The example programs, as their readers run them: official clients, a real service, and servers of scripted models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.testing.chat_servers import ChatServer
from tests.testing.served import KEY, Served

EXAMPLES = Path(__file__).parent.parent / "examples"
#: What the tests below run; a new example needs one.
RUN = {
    "grade.py",
    "langchain_riza.py",
    "mcp_client.py",
    "mistral_riza_function_calling.py",
    "mistral_riza_json_mode.py",
    "openai_riza.py",
    "riza_curl.sh",
    "session.py",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("data")) as served:
        yield served


def run(name: str, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    interpreter = "sh" if name.endswith(".sh") else sys.executable
    return subprocess.run(
        [interpreter, str(EXAMPLES / name), *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, **environment},
    )  # fmt: skip


def at(served: Served, chat: ChatServer | None = None) -> dict[str, str]:
    """Return the variables that an example finds its servers by."""
    models = {} if chat is None else {
        "MISTRAL_API_KEY": "k", "MISTRAL_SERVER_URL": chat.url, "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{chat.url}/v1",
        "OPENAI_MODEL": "m",
    }  # fmt: skip
    return {"RIZA_BASE_URL": served.url, "RIZA_API_KEY": KEY, **models}


def call(**arguments: str) -> dict[str, Any]:
    return {"calls": [{"name": "run_python", "arguments": json.dumps(arguments)}]}


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == RUN


def test_an_exercise_is_graded_by_exit_codes(tmp_path: Path) -> None:
    answer = run("grade.py", tmp_path)
    assert [line.split()[1] for line in answer.stdout.splitlines()] == ["passed", "failed", "failed", "failed"]


def test_a_table_is_explored_in_a_session(tmp_path: Path) -> None:
    answer = run("session.py", tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert ">>> sum(float(row['people']) for row in rows)\n8.6" in answer.stdout


def test_a_mistral_model_calls_for_programs_until_it_can_answer(served: Served, tmp_path: Path) -> None:
    replies = [call(wrong="x"), call(code="print(1/0)"), call(code="print(6*7)"), {"text": "It is 42."}]
    with ChatServer(*replies, mistral=True) as chat:
        answer = run("mistral_riza_function_calling.py", tmp_path, "How", "much?", **at(served, chat))
    assert (answer.returncode, answer.stdout) == (0, "It is 42.\n"), answer.stderr
    told = [each for each in chat.requests[-1]["messages"] if each["role"] == "tool"]
    assert "must be a JSON object" in told[0]["content"]
    assert "ZeroDivisionError" in json.loads(told[1]["content"])["stderr"]
    assert json.loads(told[2]["content"]) == {"exit_code": 0, "stdout": "42\n", "stderr": ""}
    assert chat.requests[0]["messages"] == [{"role": "user", "content": "How much?"}]


def test_a_mistral_model_writes_a_program_as_json_and_mends_it(served: Served, tmp_path: Path) -> None:
    programs = ["not JSON", json.dumps({"code": "print(answer)"}), json.dumps({"code": "print(6*7)"})]
    with ChatServer(*({"text": each} for each in programs), mistral=True) as chat:
        answer = run("mistral_riza_json_mode.py", tmp_path, **at(served, chat))
    assert (answer.returncode, answer.stdout) == (0, "42\n"), answer.stderr
    assert [each["response_format"]["type"] for each in chat.requests] == ["json_object"] * 3
    assert "NameError" in chat.requests[2]["messages"][-1]["content"]


def test_a_model_that_writes_no_program_is_given_up(served: Served, tmp_path: Path) -> None:
    with ChatServer(*({"text": "{}"} for _ in range(3)), mistral=True) as chat:
        answer = run("mistral_riza_json_mode.py", tmp_path, **at(served, chat))
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "after 3 tries" in answer.stderr


def test_a_model_behind_openais_api_calls_for_programs(served: Served, tmp_path: Path) -> None:
    first = {
        "calls": [
            {"name": "run_code", "arguments": json.dumps({"language": "javascript", "code": "console.log(6*7)"})},
            {"name": "run_code", "arguments": json.dumps({"language": "cobol", "code": "x"})},
        ]
    }
    with ChatServer(first, {"text": "It is 42."}) as chat:
        answer = run("openai_riza.py", tmp_path, **at(served, chat))
    assert (answer.returncode, answer.stdout) == (0, "It is 42.\n"), answer.stderr
    told = [each["content"] for each in chat.requests[1]["messages"] if each["role"] == "tool"]
    assert json.loads(told[0]) == {"exit_code": 0, "stdout": "42\n", "stderr": ""}
    assert told[1].startswith("not run: ")


def test_langchains_tools_run_what_they_are_called_with(served: Served, tmp_path: Path) -> None:
    answer = run("langchain_riza.py", tmp_path, **at(served))
    assert answer.returncode == 0, answer.stderr
    first, *failed, last = answer.stdout.splitlines()
    assert first == "riza_exec_python (success): 5050"
    assert failed[0].startswith("riza_exec_python (error): Riza code execution returned a non-zero exit code.")
    assert failed[-1] == "ZeroDivisionError: division by zero"
    assert last == "riza_exec_javascript (success): 42"


def test_curl_runs_a_program_and_a_tool(served: Served, tmp_path: Path) -> None:
    answer = run("riza_curl.sh", tmp_path, **at(served))
    assert answer.returncode == 0, answer.stderr
    script, late, tool, listed = [json.loads(line) for line in answer.stdout.splitlines()]
    assert script["stdout"] == "HELLO\n"
    assert late["exit_code"] == 124
    assert (tool["output"], tool["output_status"]) == (26, "valid")
    assert [each["exit_code"] for each in listed["data"]] == [0, 124, 0]


def test_a_client_of_mcp_runs_a_program_and_a_session(served: Served, tmp_path: Path) -> None:
    answer = run("mcp_client.py", tmp_path, FUMEHOOD_MCP_URL=f"{served.url}/mcp", FUMEHOOD_API_KEY=KEY)
    assert answer.returncode == 0, answer.stderr
    assert "tools: end_session, " in answer.stdout
    assert "run_code: [('i', 4)]\n" in answer.stdout
    assert "run_cell: [1, 2, 3]\n" in answer.stdout
    assert "IndexError" in answer.stdout
