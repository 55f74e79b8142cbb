"""`fumehood mcp` as its clients start it and end it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from functools import partial
from pathlib import Path

import httpx
import pytest
from mcp import Client

from tests.testing.mcp_clients import over_stdio, said, use, wait_until
from tests.testing.served import FUMEHOOD, KEY, Served

GREETING = [
    {"jsonrpc": "2.0", "id": 1, "method": "initialize",
     "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}},
    {"jsonrpc": "2.0", "method": "notifications/initialized"},
]  # fmt: skip


def test_the_command_ends_with_its_client_and_its_output_is_the_protocols_alone() -> None:
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": {"name": "run_code", "arguments": {"code": "print(6*7)"}}}  # fmt: skip
    lines = [*GREETING, call]
    process = subprocess.Popen(
        [FUMEHOOD, "mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("".join(json.dumps(each) + "\n" for each in lines) + "no JSON\n")
    process.stdin.flush()
    answers = [json.loads(process.stdout.readline()) for _ in range(2)]
    while answers[-1].get("id") != 2:
        answers.append(json.loads(process.stdout.readline()))
    assert answers[-1]["result"]["content"] == [{"type": "text", "text": "42"}]
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in out.splitlines())
    assert "Traceback" not in err


@pytest.mark.parametrize("way", ["it closes the pipe", "it interrupts", "it terminates", "it kills"])
def test_a_client_that_goes_away_leaves_no_program_behind(way: str) -> None:
    mark = f"mark-{os.getpid()}-{way[3:5]}"
    signals = {"it interrupts": signal.SIGINT, "it terminates": signal.SIGTERM, "it kills": signal.SIGKILL}
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "run_code", "arguments": {
        "code": f"exec -a {mark} sleep 600", "language": "bash", "timeout_seconds": 600}}}  # fmt: skip
    process = subprocess.Popen([FUMEHOOD, "mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write("".join(json.dumps(each) + "\n" for each in (*GREETING, call)))
    process.stdin.flush()
    wait_until(lambda: is_running(mark))
    if way in signals:
        process.send_signal(signals[way])
        process.wait(timeout=10)
    process.communicate(timeout=10)
    wait_until(lambda: not is_running(mark))


def is_running(mark: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(mark.encode()):
                return True
    return False


def test_the_command_lets_programs_reach_the_hosts_that_it_names_and_no_others() -> None:
    async def work(client: Client) -> None:
        tools = {each.name: each for each in (await client.list_tools()).tools}
        assert "good.test" in (tools["run_code"].description or "")
        code = "import urllib.request as u\nfor h in ('good.test', 'evil.test'):\n  try: u.urlopen(f'http://{h}')\n  except Exception as e: print(e)"
        told = await said(client, "run_code", code=code)
        assert "evil.test" in told
        assert "refused by the sandbox's policy" in told

    use(lambda: over_stdio("--allow-host", "good.test"), work)


def test_a_key_that_may_run_programs_alone_is_enough_for_a_servers_tools(tmp_path: Path) -> None:
    async def work(client: Client) -> None:
        assert await said(client, "run_code", code="print(6*7)") == "42"

    with Served(tmp_path) as served:
        keys = {
            scope: httpx.post(
                f"{served.url}/v1/keys",
                headers={"authorization": f"Bearer {KEY}"},
                json={"name": scope, "scopes": [scope]},
            ).json()["key"]
            for scope in ("execute", "read")
        }
        for url in (served.url, f"{served.url}/"):
            use(partial(over_stdio, "--server", url, FUMEHOOD_API_KEY=keys["execute"]), work)
        for key, says in ((keys["read"], "lacks the scope 'execute'"), ("nobody's key", "unauthenticated")):
            answer = subprocess.run(
                [FUMEHOOD, "mcp", "--server", served.url], capture_output=True, text=True, check=False, input="",
                env={**os.environ, "FUMEHOOD_API_KEY": key},
            )  # fmt: skip
            assert (answer.returncode, answer.stdout) == (77, "")
            assert says in answer.stderr


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--server", "http://127.0.0.1:1"], 69, "cannot be reached"),
        (["--server", "http://127.0.0.1:1", "--allow-host", "a.test"], 2, "--allow-host"),
        (["--allow-host", "10.0.0.1"], 64, "10.0.0.1"),
    ],
)
def test_what_cannot_be_begun_is_told_in_a_sentence(options: list[str], code: int, says: str) -> None:
    answer = subprocess.run([FUMEHOOD, "mcp", *options], capture_output=True, text=True, check=False, input="")
    assert (answer.returncode, answer.stdout) == (code, "")
    assert says in answer.stderr
    assert answer.stderr.count("\n") == 1
