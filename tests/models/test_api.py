"""The engine over HTTP: a real server on a free port, asked by plain requests, by our own client, and as a command."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn

from fumehood.llm.openai_compatible import OpenAICompatible
from fumehood.llm.port import ToolSchema, UserMessage
from tests.models.conftest import ONE_THREAD, RUN, asked
from tests.testing.tiny_models import call

if TYPE_CHECKING:
    from fumehood.models.loading import Model

MakeParrot = Callable[..., Path]


@contextmanager
def serving(model: Model, *, at_once: int = 4, key: str | None = None) -> Iterator[httpx.Client]:
    """Serve a model by the name tiny, and give a client for it."""
    from fumehood.models.api import make
    from fumehood.models.engine import Engine

    with socket.create_server(("127.0.0.1", 0)) as listener, Engine(model, at_once=at_once) as engine:
        config = uvicorn.Config(make(engine, name="tiny", key=key), log_config=None, timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def noisy(noise: Model) -> Iterator[httpx.Client]:
    with serving(noise) as client:
        yield client


@pytest.fixture(scope="module")
def caller(parrot: MakeParrot) -> Iterator[httpx.Client]:
    """Return a client of a model that says a sentence and makes a call."""
    from fumehood.models.loading import load

    with serving(load(parrot("I will run it.", *call("exec_python", code="print(6*7)")))) as client:
        yield client


def post(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/v1/chat/completions", json=asked(model="tiny", **fields))


def events(response: httpx.Response) -> list[dict[str, Any]]:
    *values, last, nothing = response.text.split("\n\n")
    assert (last, nothing) == ("data: [DONE]", "")
    return [json.loads(value.removeprefix("data: ")) for value in values]


def test_a_whole_answer_is_a_chat_completion(caller: httpx.Client) -> None:
    value = post(caller, tools=[RUN]).json()
    (choice,) = value["choices"]
    (made,) = choice["message"]["tool_calls"]
    assert (value["object"], value["model"], choice["finish_reason"]) == ("chat.completion", "tiny", "tool_calls")
    assert choice["message"]["content"] == "I will run it."
    assert made["function"] == {"name": "exec_python", "arguments": '{"code": "print(6*7)"}'}
    assert len(made["id"]) == 9
    assert made["id"].isalnum()
    usage = value["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_stream_put_together_is_the_whole_answer(caller: httpx.Client) -> None:
    whole = post(caller, tools=[RUN]).json()
    streamed = post(caller, tools=[RUN], stream=True, stream_options={"include_usage": True})
    *chunks, usage = events(streamed)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content") or "" for delta in deltas) == whole["choices"][0]["message"]["content"]
    pieces = [piece for delta in deltas for piece in delta.get("tool_calls", ())]
    assert [piece["index"] for piece in pieces] == [0] * len(pieces)
    assert ["id" in piece or "name" in piece["function"] for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    arguments = "".join(piece["function"]["arguments"] for piece in pieces)
    assert arguments == whole["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(reasons) - 1) + ["tool_calls"]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_our_client_of_such_servers_understands_it(caller: httpx.Client, streamed: bool) -> None:
    client = OpenAICompatible("tiny", base_url=f"{caller.base_url}/v1", timeout_seconds=30)
    tool = ToolSchema(name="exec_python", description="Run.", parameters={"type": "object"})
    completion = client.complete(
        [UserMessage(text="Go.")], tools=[tool], on_text=(lambda _text: None) if streamed else None
    )
    assert completion.text == "I will run it."
    assert [made.parsed() for made in completion.tool_calls] == [{"code": "print(6*7)"}]


def test_noise_is_whole_characters_and_says_what_cut_it(noisy: httpx.Client) -> None:
    value = post(noisy, max_tokens=300, temperature=3, seed=1).json()
    assert value["choices"][0]["finish_reason"] == "length"
    assert "\ufffd" not in value["choices"][0]["message"]["content"]


ORPHAN = [{"role": "user", "content": "a"}, {"role": "tool", "tool_call_id": "aaaaaaaa1", "content": "b"}]
WRONG: dict[str, tuple[dict[str, Any], int, str | None, str]] = {
    "unknown_model": ({"model": "zork"}, 404, None, "model_not_found"),
    "no_messages": ({"messages": []}, 400, "messages", "invalid_value"),
    "unknown_role": ({"messages": [{"role": "zork"}]}, 400, "messages[0].role", "invalid_value"),
    "result_without_call": ({"messages": ORPHAN}, 400, "messages", "invalid_messages"),
    "answer_last": ({"messages": [{"role": "assistant", "content": "a"}]}, 400, "messages", "invalid_messages"),
    "late_system": (
        {"messages": [*asked()["messages"], {"role": "assistant", "content": "a"}, {"role": "system", "content": "b"}]},
        400, "messages", "invalid_messages",
    ),
    "two_answers": ({"n": 2}, 400, "n", "unsupported_value"),
    "tool_name": ({"tools": [{"function": {"name": "a b"}}]}, 400, "messages", "invalid_messages"),
    "schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "zork"}}}},
        400, "response_format", "invalid_value",
    ),
    "context": (
        {"messages": [{"role": "user", "content": "word " * 5000}]}, 400, "messages", "context_length_exceeded",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "status", "param", "code"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_what_is_wrong_is_said_before_an_answer_begins(
    noisy: httpx.Client, fields: dict[str, Any], status: int, param: str | None, code: str, stream: bool
) -> None:
    body = json.dumps({**asked(model="tiny"), **fields, "stream": stream})
    answered = noisy.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    error = answered.json()["error"]
    assert (answered.status_code, error["param"], error["code"]) == (status, param, code), error
    assert error["message"]


def test_half_a_character_in_a_request_breaks_nothing(noisy: httpx.Client) -> None:
    half = "half \ud83d of a pair"
    made = {"id": half, "type": "function", "function": {"name": half, "arguments": json.dumps({"a": half})}}
    fields = (
        {"messages": [{"role": "user", "content": half}]},
        {"messages": [{"role": "system", "content": half}, *asked()["messages"]]},
        {"tools": [{"function": {"name": "a", "description": half, "parameters": {"title": half}}}]},
        {"messages": [*asked()["messages"], {"role": "assistant", "tool_calls": [made]},
                      {"role": "tool", "tool_call_id": half, "content": half}]},
        {"stop": half}, {"model": half}, {"tool_choice": half}, {"seed": half},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": [half]}}}},
    )  # fmt: skip
    for each in fields:
        body = json.dumps({**asked(model="tiny", max_tokens=1), **each})
        answered = noisy.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
        assert answered.status_code in (200, 400, 404), answered.text
        assert answered.json()
    assert post(noisy, max_tokens=1).status_code == 200


RAW: dict[str, tuple[bytes, str, int]] = {
    "no_json": (b'{"model": ', "application/json", 400),
    "deep_json": (b"[" * 200_000, "application/json", 400),
    "a_list": (b"[]", "application/json", 400),
    "not_utf_8": (b'{"model": "\xff"}', "application/json", 400),
    "as_a_page_would_send_it": (json.dumps(asked(model="tiny")).encode(), "text/plain", 415),
    "as_a_page_would_disguise_it": (json.dumps(asked(model="tiny")).encode(), "text/plain; x=application/json", 415),
    "too_many_values": (b'{"a": [' + b"[]," * 500_000 + b"[]]}", "application/json", 413),
    "as_another_json": (json.dumps(asked(model="tiny")).encode(), "application/jsonp", 415),
}


@pytest.mark.parametrize(("body", "kind", "status"), RAW.values(), ids=RAW.keys())
def test_a_body_of_another_form_is_refused_in_the_same_shape(
    noisy: httpx.Client, body: bytes, kind: str, status: int
) -> None:
    answered = noisy.post("/v1/chat/completions", content=body, headers={"content-type": kind})
    assert answered.status_code == status
    assert answered.json()["error"]["message"]


class Broken:
    """An engine with a mistake in it."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def submit(self, *_request: object) -> None:
        """Make it."""
        raise OverflowError("a secret of the inside")


def test_a_mistake_of_ours_is_told_in_the_same_shape_and_kept_for_the_log(noise: Model) -> None:
    from starlette.testclient import TestClient

    from fumehood.models.api import make

    client = TestClient(make(Broken(noise), name="tiny"), base_url="http://localhost", raise_server_exceptions=False)  # type: ignore[arg-type]  # made to fail
    answered = client.post("/v1/chat/completions", json=asked(model="tiny"))
    assert (answered.status_code, answered.json()["error"]["type"]) == (500, "server_error")
    assert "OverflowError" in answered.text
    assert "secret" not in answered.text
    with pytest.raises(OverflowError, match="secret"):
        TestClient(client.app, base_url="http://localhost").post("/v1/chat/completions", json=asked(model="tiny"))


def test_a_schema_too_large_for_its_grammar_is_the_callers_fault(noisy: httpx.Client) -> None:
    schema = {
        "type": "object",
        "properties": {f"property_{number}": {"type": "string"} for number in range(2000)},
    }
    answered = post(noisy, response_format={"type": "json_schema", "json_schema": {"schema": schema}}, max_tokens=50)
    assert (answered.status_code, "too large" in answered.text) == (400, True), answered.text


def test_the_model_and_its_context_are_listed(noisy: httpx.Client) -> None:
    (entry,) = noisy.get("/v1/models").json()["data"]
    assert (entry["id"], entry["max_model_len"]) == ("tiny", 4096)
    assert noisy.get("/v1/models/tiny").json() == entry
    assert noisy.get("/v1/models/zork").status_code == 404
    assert noisy.get("/v1/nowhere").json()["error"]["code"] == "not_found"
    assert noisy.get("/v1/chat/completions").status_code == 405


def test_without_the_key_nothing_is_told(noise: Model) -> None:
    with serving(noise, key="a-secret-key") as client:
        assert post(client, max_tokens=1).status_code == 401
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"authorization": "Bearer a-secret-kez"}).status_code == 401
        assert client.get("/v1/models", headers={"authorization": "Bearer a-secret-key"}).status_code == 200


def test_a_page_whose_name_points_here_is_told_nothing_without_a_key(noisy: httpx.Client) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "10.0.0.1"):
        answered = noisy.get("/v1/models", headers={"host": f"{host}:{noisy.base_url.port}"})
        assert answered.status_code == 403, host
    for host in ("localhost", "127.0.0.1", "[::1]"):
        answered = noisy.get("/v1/models", headers={"host": f"{host}:{noisy.base_url.port}"})
        assert answered.status_code == 200, host


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_who_hangs_up_frees_the_only_place(noise: Model, stream: bool) -> None:
    with serving(noise, at_once=1) as client:
        for _caller in range(3):
            body = json.dumps({**asked(model="tiny"), "max_tokens": 4000, "stream": stream}).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            with socket.create_connection((str(client.base_url.host), client.base_url.port or 0)) as line:
                line.sendall(head.encode() + body)
                if stream:
                    line.recv(100)
        begun = time.monotonic()
        assert post(client, max_tokens=1).status_code == 200
        # Each of the three would have taken seconds.
        assert time.monotonic() - begun < 1.5


def test_answers_made_at_once_are_those_made_one_by_one(noisy: httpx.Client) -> None:
    bodies = [{"max_tokens": 5 + 5 * number, "messages": [{"role": "user", "content": "a " * (1 + 9 * number)}]} for number in range(8)]  # fmt: skip

    def text(body: dict[str, Any]) -> str:
        return str(post(noisy, **body).json()["choices"][0]["message"]["content"])

    alone = [text(body) for body in bodies]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(text, bodies)) == alone


def command(*words: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fumehood", "model", "serve", *words],
        env={**os.environ, **ONE_THREAD, **more}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_the_command_serves_a_folder_until_it_is_interrupted(noise_folder: Path) -> None:
    with command("--model", str(noise_folder), "--port", "0", "--name", "tiny", "--context", "100") as process:
        assert process.stderr is not None
        try:
            said = [process.stderr.readline() for _line in range(2)]
            assert "loading" in said[0]
            assert "serving tiny (100 tokens)" in said[1]
            url = said[1].split(" at ")[1].split(";")[0]
            answered = httpx.post(f"{url}/chat/completions", json=asked(model="tiny", max_tokens=2), trust_env=False)
            assert answered.json()["usage"]["completion_tokens"] == 2
        finally:
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
    assert process.returncode in (0, 130), rest
    assert "Traceback" not in rest


ENDS: dict[str, tuple[list[str], int, str]] = {
    "no_model": ([], 2, "--model FOLDER"),
    "nothing_there": (["--model", "/nowhere"], 66, "is no folder"),
    "no_key_for_others": (["--model", "/nowhere", "--host", "0.0.0.0"], 78, "--key-env"),
    "an_empty_key": (["--model", "/nowhere", "--key-env", "NO_SUCH"], 78, "NO_SUCH"),
    "no_number": (["--model", "/nowhere", "--context", "many"], 2, "--context"),
}


@pytest.mark.parametrize(("words", "code", "said"), ENDS.values(), ids=ENDS.keys())
def test_what_the_command_cannot_do_is_one_sentence(words: list[str], code: int, said: str) -> None:
    with command(*words, "--port", "0") as process:
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, said in errors) == (code, True), errors
    assert "Traceback" not in errors
