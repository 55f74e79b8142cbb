"""The examples of the page about hosts, run against servers that have the names it speaks of."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fumehood.cli.network import rule_of
from tests.testing.outside import Authority, NameServer, Request, Server

PAGE = (Path(__file__).parent.parent.parent / "docs" / "how-to" / "allow-hosts.md").read_text(encoding="utf-8")
FUMEHOOD = Path(sys.executable).parent / "fumehood"


def answer(request: Request) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, json.dumps({"authorization": request.header("authorization")}).encode()


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Server, dict[str, str]]]:
    authority = Authority()
    with (
        authority.trusted(),
        NameServer({"api.internal": [["127.0.0.1"]]}) as names,
        Server(answer, authority.context("api.internal")) as server,
    ):
        yield server, {**os.environ, "FUMEHOOD_NAMESERVER": names.address}


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_an_example_runs(hosts: tuple[Server, dict[str, str]], code: str) -> None:
    server, environment = hosts
    subprocess.run([sys.executable, "-c", code.replace("8443", str(server.port))], env=environment, check=True)


def test_the_credentials_of_the_command_line_reach_the_host(hosts: tuple[Server, dict[str, str]]) -> None:
    server, environment = hosts
    code = f"import requests; print(requests.get('https://api.internal:{server.port}/').text)"
    rule = f"https://api.internal:{server.port}@127.0.0.0/8=bearer:@TOKEN"
    ran = subprocess.run(
        [FUMEHOOD, "run", "--allow-host", rule, "-c", code], env={**environment, "TOKEN": "the-real-token"}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert ran.stdout == '{"authorization": "Bearer **************"}\n'
    assert server.requests[-1].header("authorization") == "Bearer the-real-token"


@pytest.mark.parametrize("rule", re.findall(r"^\| `(.*?)` \|", PAGE, re.MULTILINE))
def test_a_rule_of_the_table_can_be_read(rule: str) -> None:
    assert rule_of(rule).host
