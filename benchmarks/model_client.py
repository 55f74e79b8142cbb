"""Measures what a chat client adds to a streamed request and to each of its deltas, over `httpx` that reads the same bytes.

The server is a process of its own on this machine's loopback, which sends what is written down: a stream of as many deltas as the path
says, in one go, or with a pause before each ("one by one"). "raw" is one `httpx.Client` that keeps its connection and takes the answer
line by line, without reading what it says: the least that any client does. Ours and the official SDKs', asked as they are meant to be,
make text of it. All take turns. Where the server paces the stream, what is counted is the client's processor time.
"""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import openai
from mistralai.client import Mistral

from benchmarks import report
from fumehood.llm.history import as_dicts
from fumehood.llm.mistral import MistralModel
from fumehood.llm.openai_compatible import OpenAICompatible
from fumehood.llm.port import AssistantMessage, ChatModel, Message, ToolCall, ToolMessage, UserMessage

DELTAS, PACED, TURNS = 2000, 300, 100
REQUEST_GOAL_MS, DELTA_GOAL_US = 2.0, 20.0

_SERVER = """
import json, socket, sys, threading, time
head = {'id': '1', 'object': 'chat.completion.chunk', 'created': 1, 'model': 'm'}
def event(delta, reason=None):
    choices = [{'index': 0, 'delta': delta, 'finish_reason': reason}]
    return b'data: ' + json.dumps({**head, 'choices': choices}).encode() + b'\\n\\n'
def chunk(data): return b'%x\\r\\n%s\\r\\n' % (len(data), data)
def attend(client):
    data = b''
    while True:
        while b'\\r\\n\\r\\n' not in data:
            piece = client.recv(65536)
            if not piece: return
            data += piece
        start, _end, data = data.partition(b'\\r\\n\\r\\n')
        length = int(start.lower().split(b'content-length: ')[1].split()[0])
        while len(data) < length: data += client.recv(65536)
        data = data[length:]
        pace, count = start.split()[1].split(b'/')[1:3]
        events = [event({'role': 'assistant', 'content': 'word '})] * int(count) + [event({'content': ''}, 'stop'), b'data: [DONE]\\n\\n']
        client.sendall(b'HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n')
        if pace == b'paced':
            for each in events: time.sleep(0.0002); client.sendall(chunk(each))
            client.sendall(chunk(b''))
        else: client.sendall(b''.join(map(chunk, events)) + chunk(b''))
def attend_or_leave(client):
    try: attend(client)
    except OSError: pass
listener = socket.create_server(('127.0.0.1', 0), backlog=128)
print(listener.getsockname()[1], flush=True)
while True:
    client, _address = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=attend_or_leave, args=(client,), daemon=True).start()
"""

#: A way of asking: it takes the place of the answer, like `/fast/1`, and the messages.
Way = Callable[[str, list[Message]], None]


def main() -> None:
    """Measure, print, save."""
    arguments = report.options(__doc__, rounds=100)
    with ExitStack() as stack:
        ways = _ways(stack.enter_context(_server()), stack)
        short, long = _history(0), _history(TURNS)
        rows = [
            *_requests("a streamed request", ways, short, arguments.rounds),
            *_requests(f"a streamed request after {TURNS} turns", ways, long, arguments.rounds),
            *_deltas("a delta", ways, f"/fast/{DELTAS}", DELTAS, time.perf_counter, arguments.rounds // 5),
            *_deltas("a delta, one by one", ways, f"/paced/{PACED}", PACED, time.process_time, arguments.rounds // 5),
        ]
    report.save("model-client", rows, arguments, [])


def _history(turns: int) -> list[Message]:
    messages: list[Message] = [UserMessage(text="What is the sum?")]
    for turn in range(turns):
        call = ToolCall(id=f"call{turn:05}", name="exec_python", arguments='{"code": "print(1 + 1)"}')
        messages += [
            AssistantMessage(tool_calls=(call,)),
            ToolMessage(call_id=call.id, name=call.name, text="2\n" * 100),
        ]
    return messages


def _ways(url: str, stack: ExitStack) -> dict[str, Way]:
    client = stack.enter_context(httpx.Client(trust_env=False))

    def raw(path: str, messages: list[Message]) -> None:
        with client.stream("POST", f"{url}{path}", json={"messages": _plain(messages)}) as response:
            for _line in response.iter_lines():
                pass

    def ours(make: Callable[[str], ChatModel]) -> Way:
        models: dict[str, ChatModel] = {}

        def way(path: str, messages: list[Message]) -> None:
            model = models.setdefault(path, make(f"{url}{path}"))
            if not model.complete(messages, on_text=lambda _text: None).text.startswith("word"):
                raise RuntimeError("the answer did not arrive")

        return way

    openais: dict[str, openai.OpenAI] = {}
    mistrals: dict[str, Mistral] = {}

    def openai_sdk(path: str, messages: list[Message]) -> None:
        if path not in openais:
            openais[path] = stack.enter_context(openai.OpenAI(base_url=f"{url}{path}", api_key="none", max_retries=0))
        sent: Any = _plain(messages)
        for chunk in openais[path].chat.completions.create(model="m", messages=sent, stream=True):
            _ = chunk.choices[0].delta.content

    def mistral_sdk(path: str, messages: list[Message]) -> None:
        if path not in mistrals:
            mistrals[path] = stack.enter_context(Mistral(api_key="none", server_url=f"{url}{path}"))
        sent: Any = _plain(messages)
        with mistrals[path].chat.stream(model="m", messages=sent) as events:
            for event in events:
                _ = event.data.choices[0].delta.content

    return {
        "raw": raw,
        "openai_compatible": ours(lambda url: OpenAICompatible("m", base_url=url)),
        "mistral": ours(lambda url: MistralModel("m", key="none", server_url=url)),
        "the openai SDK": openai_sdk,
        "the mistralai SDK": mistral_sdk,
    }


@functools.cache
def _written(turns: int) -> list[dict[str, Any]]:
    return as_dicts(_history(turns), named_results=False)


def _plain(messages: list[Message]) -> list[dict[str, Any]]:
    """Return messages as they are sent; made ready once, since the peers are given them so."""
    return _written(len(messages) // 2)


def _requests(what: str, ways: dict[str, Way], messages: list[Message], rounds: int) -> list[dict[str, Any]]:
    """Measure an answer of one delta."""
    times = _measured(ways, "/fast/1", messages, time.perf_counter, rounds)
    raw = statistics.median(times["raw"])
    rows = []
    for way, seconds in times.items():
        row = {"what": f"{what}, {way}", "text": _in_milliseconds(seconds), "goal": ""}
        if way != "raw":
            row["text"] += f", adds {(statistics.median(seconds) - raw) * 1000:.2f} ms at p50"
        if way in ("openai_compatible", "mistral"):
            row["goal"] = f"adds < {REQUEST_GOAL_MS:g} ms"
        rows.append(row)
    return rows


def _deltas(
    what: str, ways: dict[str, Way], path: str, count: int, clock: Callable[[], float], rounds: int
) -> list[dict[str, Any]]:
    """Measure a long answer; what a request costs is taken off."""
    one = _measured(ways, f"{path.rpartition('/')[0]}/1", _history(0), clock, rounds)
    many = _measured(ways, path, _history(0), clock, rounds)
    each = {way: (statistics.median(many[way]) - statistics.median(one[way])) / (count - 1) * 1e6 for way in ways}
    rows = []
    for way, microseconds in each.items():
        row = {"what": f"{what}, {way}", "text": f"{microseconds:.1f} µs", "goal": ""}
        if way != "raw":
            row["text"] += f", adds {microseconds - each['raw']:.1f} µs"
        if way in ("openai_compatible", "mistral"):
            row["goal"] = f"adds < {DELTA_GOAL_US:g} µs"
        rows.append(row)
    return rows


def _measured(
    ways: dict[str, Way], path: str, messages: list[Message], clock: Callable[[], float], rounds: int
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {way: [] for way in ways}
    for way in ways.values():
        way(path, messages)
    for _each in range(rounds):
        for name, way in ways.items():
            began = clock()
            way(path, messages)
            times[name].append(clock() - began)
    return times


def _in_milliseconds(seconds: list[float]) -> str:
    p95 = statistics.quantiles(seconds, n=20)[-1] * 1000
    return f"{statistics.median(seconds) * 1000:.2f} ms (p95 {p95:.2f})"


@contextmanager
def _server() -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline() if process.stdout else '')}"
        finally:
            process.kill()


if __name__ == "__main__":
    main()
