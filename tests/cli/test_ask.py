"""The command as a user runs it: its own process, the real sandbox, a replay or a real server of chat completions."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.testing.chat_servers import ChatServer
from tests.testing.raw_server import RawServer, events

FIBONACCI = "What are the first 50 Fibonacci numbers?"
LAST = "7778742049"


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME") if name in os.environ
    }
    return {**kept, "XDG_CONFIG_HOME": str(tmp_path), "LANG": "C.UTF-8"}


@pytest.fixture
def ask(environment: dict[str, str]) -> Command:
    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fumehood", "ask", *words]
        return subprocess.run(
            command, env={**environment, **more}, capture_output=True, text=True, timeout=60, check=False
        )

    return run


@pytest.mark.parametrize("method", [[], ["--json-mode"], ["--no-stream"]], ids=["calls", "direct", "whole"])
def test_the_demo_prints_the_true_numbers_and_says_that_it_is_a_replay(ask: Command, method: list[str]) -> None:
    done = ask("--model", "scripted:demo", *method, FIBONACCI)
    first, *rest = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert "replay" in first
    assert "not a model" in first
    a, b, numbers = 0, 1, []
    for _ in range(50):
        numbers.append(str(a))
        a, b = b, a + b
    assert rest[-1] == ", ".join(numbers)
    assert "numbers.append(a)" in done.stderr, "the program is shown"


QUESTIONS = {
    "haiku": ("Write a haiku about Python.", "the snake counts to ten."),
    "network": ("What is on the front page of example.com?", "by policy"),
    "two_calls": ("What are 2 to the power of 100 and 100 factorial?", str(2**100)),
}


@pytest.mark.parametrize(("question", "words"), QUESTIONS.values(), ids=QUESTIONS.keys())
@pytest.mark.parametrize("method", [[], ["--json-mode"]], ids=["calls", "direct"])
def test_each_question_of_the_demo_is_answered_by_both_methods(
    ask: Command, question: str, words: str, method: list[str]
) -> None:
    done = ask("--model", "scripted:demo", *method, question)
    assert (done.returncode, words in done.stdout) == (0, True), done.stderr


def test_json_is_the_whole_transcript_and_nothing_else(ask: Command) -> None:
    done = ask("--model", "scripted:demo", "--json", FIBONACCI)
    transcript = json.loads(done.stdout)
    assert [message["role"] for message in transcript["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert transcript["usage"] == {"prompt_tokens": 0, "completion_tokens": 0}
    assert transcript["executions"][0]["exit_code"] == 0
    assert LAST in transcript["answer"]


def test_a_real_server_is_asked_by_its_address(ask: Command) -> None:
    code = json.dumps({"code": "print(6 * 7)"})
    with ChatServer({"calls": [{"name": "exec_python", "arguments": code}]}, {"text": "It is **42**."}) as server:
        done = ask("--model", f"openai:m@{server.url}/v1", "What is 6 times 7?")
    assert (done.returncode, done.stdout) == (0, "It is **42**.\n"), done.stderr
    assert server.requests[1]["messages"][-1]["content"] == "42\n"


def test_what_a_server_got_wrong_is_noted_beside_the_answer(ask: Command) -> None:
    said = [{"text": ""}, {"text": "42"}] * 2
    with ChatServer(*said) as server:
        done = ask("--model", f"openai:m@{server.url}/v1", "q")
        noted = json.loads(ask("--model", f"openai:m@{server.url}/v1", "--json", "q").stdout)["notes"]
    assert (done.returncode, done.stdout) == (0, "42\n")
    assert "noted: an answer was none" in done.stderr
    assert [note["quirk"] for note in noted] == ["asked_again"]


def test_the_time_of_a_program_is_limited(ask: Command) -> None:
    code = json.dumps({"code": "while True: pass"})
    with ChatServer({"calls": [{"name": "exec_python", "arguments": code}]}, {"text": "too slow"}) as server:
        done = ask("--model", f"openai:m@{server.url}/v1", "--timeout", "1", "Wait.")
    assert done.returncode == 0, done.stderr
    assert "timeout" in server.requests[1]["messages"][-1]["content"]


ENDS = {
    "no_question": (["--model", "scripted:demo"], 2, "give a question"),
    "turns_of_another_form": (["--max-turns", "0", "q"], 2, "1 to 1000"),
    "unknown_question": (["--model", "scripted:demo", "Why?"], 72, "Fibonacci"),
    "unknown_kind": (["--model", "zork:x", "q"], 72, "choose one of"),
    "missing_file": (["--model", "scripted:/nowhere.json", "q"], 78, "nowhere"),
    "nobody_listens": (["--model", "openai:m@http://127.0.0.1:1/v1", "q"], 69, "cannot be reached"),
    "turns_used_up": (["--model", "scripted:demo", "--max-turns", "1", FIBONACCI], 75, "after 1 turns"),
}


@pytest.mark.parametrize(("words", "code", "said"), ENDS.values(), ids=ENDS.keys())
def test_what_goes_wrong_is_one_sentence_with_its_exit_code(
    ask: Command, words: list[str], code: int, said: str
) -> None:
    done = ask(*words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("status", "words"), [(401, "answered 401"), (429, "answered 429"), (500, "answered 500")])
def test_an_http_error_is_said_with_its_status(ask: Command, status: int, words: str) -> None:
    with ChatServer(status) as server:
        done = ask("--model", f"openai:m@{server.url}/v1", "q", OPENAI_API_KEY="sk-a-secret-key")
    assert done.returncode == 77
    assert words in done.stderr
    assert "sk-a-secret-key" not in done.stderr
    assert "Traceback" not in done.stderr


def on_a_terminal(words: list[str], environment: dict[str, str], heard: Callable[[bytes], None] | None = None) -> str:
    """Run the command with a terminal as its standard output; return all that the terminal was sent.

    `heard` is called with all of it so far whenever there is more.
    """
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "fumehood", "ask", *words]
    with subprocess.Popen(command, env=environment, stdin=slave, stdout=slave, stderr=subprocess.DEVNULL) as process:
        os.close(slave)
        sent = b""
        # Reading a terminal whose last holder has gone is an error, not an end of file.
        try:
            while data := os.read(master, 65536):
                sent += data
                if heard is not None:
                    heard(sent)
        except OSError:
            pass
        os.close(master)
    assert process.returncode == 0
    return sent.decode()


def test_an_answer_is_rendered_as_markdown_on_a_terminal(environment: dict[str, str]) -> None:
    with ChatServer({"text": "# Title\n\nIt is **42**."}) as server:
        words = ["--model", f"openai:m@{server.url}/v1", "q"]
        sent = on_a_terminal(words, {**environment, "TERM": "xterm-256color", "COLUMNS": "80"})
    assert "**42**" not in sent.splitlines()[-1]
    assert "\x1b[1m42\x1b[0m" in sent


def test_no_colour_is_used_where_none_is_wanted(environment: dict[str, str]) -> None:
    with ChatServer({"text": "Say `this`."}) as server:
        words = ["--model", f"openai:m@{server.url}/v1", "q"]
        sent = on_a_terminal(words, {**environment, "TERM": "xterm-256color", "NO_COLOR": "1"})
    assert "this" in sent
    assert not any(f"\x1b[{colour}" in sent for colour in ("3", "4", "9", "1;3"))


@pytest.mark.parametrize("options", [[], ["--no-stream"], ["--json-mode"]], ids=["streamed", "whole", "direct"])
def test_a_models_text_and_a_programs_output_cannot_drive_the_terminal(
    environment: dict[str, str], options: list[str]
) -> None:
    attack = "\x1b]0;owned\x07\x1b]52;c;b3duZWQ=\x07\x1b[2J\x9b2J\u202e [click](https://evil.example)"
    text = json.dumps({"code": f"print({attack!r})"}) if "--json-mode" in options else f"see {attack} end"
    with ChatServer({"text": text}) as server:
        words = ["--model", f"openai:m@{server.url}/v1", *options, "q"]
        sent = on_a_terminal(words, {**environment, "TERM": "xterm-256color", "COLUMNS": "200"})
    assert "owned" in sent
    assert not any(sequence in sent for sequence in ("\x1b]", "\x1b[2J", "\x9b", "\x07", "\u202e"))


def test_a_long_answer_is_drawn_whole_on_a_small_terminal(environment: dict[str, str]) -> None:
    body = events(*({"content": f"- item {number}\n"} for number in range(200)))
    first_half_is_drawn = threading.Event()

    def heard(sent: bytes) -> None:
        if b"item 5" in sent:
            first_half_is_drawn.set()

    with RawServer(body, kind="text/event-stream", hold=first_half_is_drawn) as server:
        words = ["--model", f"openai:m@{server.url}/v1", "q"]
        small = {**environment, "TERM": "xterm-256color", "COLUMNS": "40", "LINES": "10"}
        sent = on_a_terminal(words, small, heard)
    assert all(f"item {number}" in sent for number in range(200))
    assert sent.count("item 50") == 1, "what has scrolled away is drawn once"


def test_with_no_model_the_ways_to_get_one_are_named(environment: dict[str, str], tmp_path: Path) -> None:
    # By the module's own door, so that servers which happen to run on this machine are not found.
    from fumehood.errors import NoModel
    from fumehood.llm.choose import Surroundings, choose

    with pytest.raises(NoModel, match=r"(?s)MISTRAL_API_KEY.*Ollama.*openai:.*scripted:demo") as caught:
        choose(None, Surroundings(environment=environment, folder=tmp_path, ports={}))
    assert caught.value.exit_code == 72
