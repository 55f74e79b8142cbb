"""The command and its reports, as people and build servers meet them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from fumehood.conformance.check import Check, Outcome, Result, Severity
from fumehood.conformance.checks import CHECKS
from fumehood.conformance.page import page
from fumehood.conformance.reports import Report, as_junit
from fumehood.conformance.running import exit_code
from fumehood.conformance.wire import Exchange

from .faults import Fault
from .scripted_server import MODEL, NOISE, ScriptedServer

FUMEHOOD = str(Path(sys.executable).with_name("fumehood"))


def verify(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FUMEHOOD, "model", "verify", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def before(server: ScriptedServer, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    with server:
        return verify("--base-url", server.url, "--model", MODEL, *words, **environment)


def test_the_table_names_each_check_and_the_exit_code_is_0() -> None:
    answer = before(ScriptedServer(exact=True))
    assert answer.returncode == 0, answer.stdout
    lines = answer.stdout.splitlines()
    assert [line.split()[:2] for line in lines[: len(CHECKS)]] == [["pass", check.id] for check in CHECKS]
    assert lines[-1].startswith(f"{len(CHECKS)} pass, in ")


@pytest.mark.parametrize(
    ("fault", "code", "id_"),
    [(Fault.KEEPS_TRAILING_SPACES, 1, "P12"), (Fault.FORGETS_EOS, 3, "P3"), (Fault.PARSES_CONTROL_TEXT, 4, "P8")],
    ids=["minor", "major", "critical"],
)
def test_a_failure_shows_what_it_means_and_sets_the_exit_code(fault: Fault, code: int, id_: str) -> None:
    answer = before(ScriptedServer(fault), "--only", id_, "--only", "D3")
    check = next(check for check in CHECKS if check.id == id_)
    assert answer.returncode == code
    assert f"{check.severity}: {check.meaning}" in answer.stdout
    assert f"cure: {check.cure}" in answer.stdout


def test_where_nothing_passes_nothing_is_proven() -> None:
    answer = before(ScriptedServer(noise=NOISE), "--only", "C1")
    assert answer.returncode == 5
    assert answer.stdout.startswith("needs real weights C1 ")


def test_json_junit_and_the_page_tell_the_same(tmp_path: Path) -> None:
    files = ("--junit", str(tmp_path / "a.xml"), "--html", str(tmp_path / "a.html"))
    answer = before(ScriptedServer(Fault.FORGETS_EOS), "--json", *files, "--only", "P")
    told = json.loads(answer.stdout)
    failed = [check["id"] for check in told["checks"] if check["outcome"] == "fail"]
    assert failed == ["P3"]
    assert told["outcomes"] == {"pass": 10, "fail": 1, "skipped": 2, "needs real weights": 0}
    suite = ET.parse(tmp_path / "a.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("13", "1")
    assert [case.get("name") for case in suite if case.find("failure") is not None] == ["P3 eos-after-answers"]
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert text.count("<summary>POST /chat/completions: 200") == sum(check["requests"] for check in told["checks"])
    assert '<details class="check" id="P3" open>' in text
    assert text.index("What failed") < text.index('<a href="#P3">P3 eos-after-answers</a>') < text.index('id="P2"')


@pytest.mark.parametrize("option", ["--junit", "--html"])
def test_a_report_that_cannot_be_written_is_said_before_anything_is_asked(option: str, tmp_path: Path) -> None:
    server = ScriptedServer()
    answer = before(server, "--json", option, str(tmp_path / "no" / "a.xml"))
    assert answer.returncode == 64
    assert "cannot be written: No such file or directory" in answer.stderr
    assert server.keys == set(), "nothing was asked"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_what_was_found_is_printed_though_a_report_is_lost() -> None:
    answer = before(ScriptedServer(), "--json", "--junit", "/dev/full", "--only", "D3")
    assert answer.returncode == 64
    assert json.loads(answer.stdout)["outcomes"]["pass"] == 1
    assert "No space left" in answer.stderr


def test_a_report_takes_the_place_of_the_one_before_and_stays_where_there_is_no_new_one(tmp_path: Path) -> None:
    report = tmp_path / "a.xml"
    report.write_text("old")
    verify("--base-url", "http://127.0.0.1:1/v1", "--model", "a", "--junit", str(report))
    assert report.read_text() == "old"
    before(ScriptedServer(), "--junit", str(report), "--only", "D3")
    assert ET.parse(report).getroot().get("tests") == "1"


@pytest.mark.parametrize(
    ("words", "option", "action"),
    [
        (("verify", "--engine", "vllm", "--base-url", "a"), "--engine", "serve"),
        (("verify", "--list", "--port", "8000"), "--port", "serve"),
        (("verify", "--list", "--print"), "--print", "serve"),
        (("serve", "--engine", "vllm", "--model", "a", "--print", "--list"), "--list", "verify"),
        (("serve", "--engine", "vllm", "--model", "a", "--print", "--only", "C1"), "--only", "verify"),
    ],
)
def test_options_of_the_other_action_are_refused(words: tuple[str, ...], option: str, action: str) -> None:
    answer = subprocess.run([FUMEHOOD, "model", *words], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert f"{option} is an option of `fumehood model {action}`" in answer.stderr


def test_only_takes_ids_names_and_letters_and_refuses_others() -> None:
    listed = json.loads(verify("--list", "--json", "--only", "p8", "--only", "one-bos", "--only", "J").stdout)
    assert [check["id"] for check in listed] == ["P2", "P8", "J1", "J2", "J3", "J4"]
    four = json.loads(verify("--list", "--json", "--only", "c11").stdout)
    assert [check["id"] for check in four] == ["C11a", "C11b", "C11c", "C11d"]
    answer = verify("--list", "--only", "zork")
    assert answer.returncode == 64
    assert "there is no check 'zork'" in answer.stderr


def test_list_names_every_check_and_asks_nothing() -> None:
    answer = verify("--list")
    assert answer.returncode == 0
    assert all(f"  {check.id:<5} {check.name} " in answer.stdout for check in CHECKS)


def test_the_key_comes_from_the_environment_and_is_not_shown(tmp_path: Path) -> None:
    server = ScriptedServer()
    key = "sk-0123456789abcdef"
    shown = tmp_path / "a.html"
    answer = before(server, "--only", "D3", "--key-env", "THE_KEY", "--only", "P2", "--html", str(shown), THE_KEY=key)
    assert answer.returncode == 0
    assert server.keys == {f"Bearer {key}"}
    assert key not in answer.stdout + answer.stderr + shown.read_text(encoding="utf-8")
    assert verify("--base-url", "http://127.0.0.1:1/v1", "--model", "a", "--key-env", "THE_KEY").returncode == 78


def test_without_mistral_common_its_checks_are_skipped_and_say_what_to_install() -> None:
    program = (
        "import sys; sys.modules['mistral_common'] = None; from fumehood.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    with ScriptedServer() as server:
        words = ["model", "verify", "--base-url", server.url, "--model", MODEL, "--only", "P1", "--only", "P2"]
        answer = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "pip install 'fumehood[conformance]'" in answer.stdout


def test_a_file_that_is_no_tokenizer_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "tekken.json").write_text("{}")
    for named in (tmp_path, tmp_path / "tekken.json", tmp_path / "gone.json"):
        answer = before(ScriptedServer(), "--only", "P1", "--tokenizer", str(named))
        assert answer.returncode == 64
        assert "is no tokenizer that mistral-common reads" in answer.stderr
        assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "say which server and model"),
        (("--base-url", "http://127.0.0.1:1/v1", "--model", "a", "--timeout", "0"), 78, "is no time to wait"),
        (("--base-url", "http://127.0.0.1:1/v1", "--model", "a", "--system-prompt", "/gone"), 64, "cannot be read"),
        (("--base-url", "http://127.0.0.1:1/v1", "--model", "a"), 69, "cannot be reached"),
        (("--base-url", "zork", "--model", "a"), 78, "is no base URL"),
    ],
    ids=["nothing", "no-time", "no-prompt", "no-server", "no-url"],
)
def test_what_cannot_be_verified_is_one_sentence(words: tuple[str, ...], code: int, said: str) -> None:
    answer = verify(*words)
    assert (answer.returncode, answer.stdout) == (code, "")
    assert said in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


HOSTILE = "</pre><script>alert(1)</script>\x1b]0;owned\x07\u202eevil \ud83e & \x00"


def hostile_report() -> Report:
    check = CHECKS[0]
    exchange = Exchange(
        method="POST", path="/chat/completions", request={"a": HOSTILE}, streamed=False, status=200, headers={},
        body=HOSTILE.encode("utf-8", "replace"), first_byte_seconds=0.1, seconds=0.2, broken=HOSTILE,
    )  # fmt: skip
    failed = Result(check=check, outcome=Outcome.FAIL, seen=HOSTILE, seconds=0.1, exchanges=(exchange,))
    skipped = Result(check=check, outcome=Outcome.SKIPPED, seen=HOSTILE, seconds=0.1, exchanges=())
    return Report(
        base_url="http://a/v1", model=HOSTILE, version="1", begun="2031-03-14T00:00:00+00:00", seconds=1.0,
        results=(failed, skipped),
    )  # fmt: skip


def test_what_a_server_says_is_text_in_the_page() -> None:
    text = page(hostile_report())
    text.encode("utf-8")
    assert "<script" not in text
    assert not set(text) & set("\x1b\x07\x00\u202e")
    assert text.count("&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;\\u001b]0;owned\\u0007\\u202eevil") >= 5
    assert "default-src 'none'" in text


def test_what_a_server_says_is_text_in_junit() -> None:
    suite = ET.fromstring(as_junit(hostile_report()).encode("utf-8"))
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert (
        failure.get("message") == "</pre><script>alert(1)</script>\\u001b]0;owned\\u0007\\u202eevil \\ud83e & \\u0000"
    )


def test_a_terminal_sees_no_escape_of_a_servers() -> None:
    answer = before(ScriptedServer(), "--only", "D3", "--model", "\x1b]0;owned\x07")
    assert answer.returncode == 1
    assert "\x1b" not in answer.stdout
    assert "owned" in answer.stdout


def test_the_worst_failure_decides() -> None:
    def result(severity: Severity, outcome: Outcome) -> Result:
        known = {
            name: getattr(CHECKS[0], name) for name in ("id", "name", "proves", "oracle", "meaning", "cure", "run")
        }
        check = Check(**known, severity=severity)
        return Result(check=check, outcome=outcome, seen="", seconds=0.0, exchanges=())

    minor, major = result(Severity.MINOR, Outcome.FAIL), result(Severity.MAJOR, Outcome.FAIL)
    critical, passed = result(Severity.CRITICAL, Outcome.SKIPPED), result(Severity.CRITICAL, Outcome.PASS)
    assert [
        exit_code(each) for each in ([minor, major, passed], [minor, passed], [passed, critical], [critical], [])
    ] == [
        3,
        1,
        0,
        5,
        5,
    ]
