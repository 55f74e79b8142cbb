"""The command line's options about hosts, as a person uses them: real commands, real servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fumehood.cli.arguments import UsageError
from fumehood.cli.network import rule_of
from fumehood.errors import FumehoodError
from fumehood.protocol.credentials import Basic, Bearer, Header, Query

FUMEHOOD = Path(sys.executable).parent / "fumehood"
SECRET = "correct-horse-battery-staple"


def run(*words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FUMEHOOD, *words],
        capture_output=True,
        text=True,
        input=stdin,
        env={**os.environ, **environment},
        check=False,
        timeout=60,
    )


def test_a_refused_host_is_told_with_the_option_that_would_allow_it() -> None:
    code = "import requests; print(requests.get('https://evil.test/').status_code)"
    ran = run("run", "--allow-host", "good.test", "-c", code)
    assert ran.stdout == "403\n", ran.stderr
    assert ran.stderr == (
        "fumehood: refused: host evil.test is not allowed: only good.test: --allow-host evil.test would allow it\n"
    )


def test_without_the_option_there_is_no_network_and_the_option_is_named() -> None:
    ran = run("run", "-c", "import requests; requests.get('https://good.test/')")
    assert ran.returncode == 1
    assert ran.stderr.endswith(
        "fumehood: the program tried the network; the sandbox has none, by policy (--allow-host HOST gives it one)\n"
    )


def test_json_has_what_was_reached_and_what_was_refused() -> None:
    code = "import requests; requests.get('http://evil.test/')"
    values = json.loads(run("run", "--json", "--allow-host", "*.good.test", "-c", code).stdout)
    (line,) = values["connections"]
    assert (line["host"], line["port"], line["verdict"], line["methods"]) == ("evil.test", 80, "refused", ["GET"])
    assert [each["rule"] for each in values["refusals"]] == ["evil.test", "evil.test"]


def test_a_credential_comes_from_the_environment_and_is_seen_nowhere() -> None:
    code = "import os, requests; print(os.environ.get('TOKEN'), os.environ['GOOD'][:20]); requests.get('https://good.invalid/')"
    ran = run(
        "run", "--json", "--allow-host", "https://good.invalid=bearer:@TOKEN", "--placeholder", "GOOD=good.invalid", "-c", code,
        TOKEN=SECRET,
    )  # fmt: skip
    assert json.loads(ran.stdout)["stdout"] == "None fumehood-placeholder\n"
    assert SECRET not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("text", "credential"),
    [
        ("a.test=bearer:t:o:k", Bearer(token="t:o:k")),
        ("https://a.test=basic:me:pass=word:1", Basic(user="me", password="pass=word:1")),
        ("a.test:8443=header:X-Key:v", Header(name="X-Key", value="v")),
        ("a.test=query:key:v", Query(key="key", value="v")),
        ("a.test=bearer:@FUMEHOOD_TEST", Bearer(token="from the environment")),
    ],
)
def test_a_rule_takes_a_credential(text: str, credential: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUMEHOOD_TEST", "from the environment")
    assert rule_of(text).credential == credential


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "host '': it is empty"),
        ("10.0.0.1", "reads as an address"),
        ("a.test:0", "port '0' is not a number from 1 to 65535"),
        ("ftp://a.test", "scheme 'ftp'"),
        ("a_b.test", "it has the character '_'"),
        ("a.test@10.0.0.0/99", "write a network like 10.0.0.0/8"),
        (f"a.test=token:{SECRET}", "a credential is bearer:TOKEN"),
        (f"a.test={SECRET}", "a credential is bearer:TOKEN"),
        ("a.test=basic:me", "give USER:PASSWORD"),
        ("a.test=bearer:@FUMEHOOD_NOT_SET", "the environment variable 'FUMEHOOD_NOT_SET' is not set"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_sentence_without_the_secret(text: str, says: str) -> None:
    with pytest.raises(FumehoodError) as raised:
        rule_of(text)
    assert says in str(raised.value)
    assert SECRET not in str(raised.value)


def test_a_placeholder_needs_a_host_with_a_credential() -> None:
    for words in (
        ("--placeholder", "A=a.test"),
        ("--allow-host", "a.test", "--placeholder", "A=a.test"),
        ("--placeholder", "A"),
    ):
        ran = run("run", *words, "-c", "1")
        assert ran.returncode == UsageError.exit_code
        assert ran.stderr.startswith("fumehood: --placeholder")
        assert ran.stderr.count("\n") == 1


def test_the_shells_programs_reach_the_hosts_of_the_option() -> None:
    code = "import requests\nprint(requests.get('https://evil.test/').status_code)"
    ran = run("shell", "--allow-host", "good.test", stdin=code)
    assert ran.stdout == "403\n", ran.stderr
    assert "host evil.test is not allowed: only good.test" in ran.stderr


def test_a_model_is_asked_with_the_hosts(tmp_path: Path) -> None:
    code = "import requests; print(requests.get('https://evil.test/').status_code)"
    turns = [{"calls": [{"name": "exec_python", "arguments": {"code": code}}]}, {"text": "{{result}}"}]
    dialogue = tmp_path / "d.json"
    dialogue.write_text(json.dumps({"dialogues": [{"question": "q", "turns": turns}]}))
    ran = run("ask", "--json", "--model", f"scripted:{dialogue}", "--allow-host", "good.test", "q")
    transcript = json.loads(ran.stdout)
    assert "these hosts and no others: good.test" in transcript["messages"][0]["text"]
    assert "host evil.test is not allowed: only good.test" in transcript["answer"]
    assert "--allow-host evil.test would allow it" in ran.stderr
