"""Other servers are found or started, waited for, verified and written down; and they end with us."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.scripted_server import MODEL, ScriptedServer

StandIns = Callable[..., str]
COMMAND = (sys.executable, "-m", "fumehood")


@pytest.fixture
def surroundings(tmp_path: Path, stand_ins: StandIns) -> dict[str, str]:
    home = tmp_path / "home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if key not in ("XDG_CONFIG_HOME", "MISTRAL_API_KEY")}
    path = stand_ins("vllm", "llama-server", "ollama", "lms")
    return {**environment, "HOME": str(home), "PATH": path, "STAND_IN_FILES": str(tmp_path)}


def run(environment: dict[str, str], *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "model", "serve", *words],
        env={**environment, **more}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@contextmanager
def served(environment: dict[str, str], *words: str, **more: str) -> Iterator[tuple[Any, subprocess.Popen[str]]]:
    """Yield what the command says once it serves, and its process."""
    command = [*COMMAND, "model", "serve", "--port", "0", "--json", "--wait", "40", *words]
    with subprocess.Popen(
        command, env={**environment, **more}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line and process.stderr is not None:
                pytest.fail(process.stderr.read())
            yield json.loads(line), process
        finally:
            process.kill()


def ended(*pids: int) -> bool:
    """Whether all of them are gone within some seconds."""
    for _ in range(100):
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def pids(folder: Path) -> list[int]:
    return [int(each) for each in (folder / "pids").read_text().split()]


def configuration(environment: dict[str, str]) -> Path:
    return Path(environment["HOME"], ".config", "fumehood", "config.toml")


def test_a_server_is_started_verified_and_written_down_so_that_ask_uses_it(surroundings: dict[str, str]) -> None:
    with served(surroundings, "--engine", "vllm", "--model", "o/m", "--name", MODEL) as (told, process):
        assert (told["engine"], told["model"], told["started"]) == ("vllm", MODEL, True)
        assert told["verified"]["failed"] == []
        assert told["verified"]["outcomes"]["pass"] > 10
        assert configuration(surroundings).read_text() == f'model = "vllm:{MODEL}@{told["base_url"]}"\n'
        question = "Repeat this sentence word for word and write nothing else:\nThe sky is blue."
        asked = subprocess.run(
            [*COMMAND, "ask", question], env=surroundings, capture_output=True, text=True, timeout=30, check=False
        )
        assert asked.stdout == "The sky is blue.\n", asked.stderr
        process.terminate()
        assert process.wait(15) == 0
        assert process.stderr is not None
        said = process.stderr.read()
    assert "vllm serve o/m --served-model-name devstral" in said
    assert "waiting for vllm" in said
    assert "\x1b]0;a title" not in said, "what a server prints moves no terminal"


def test_a_critical_failure_is_said_and_sets_the_exit_code_and_it_serves_on(
    surroundings: dict[str, str], gguf: Path
) -> None:
    words = ("--engine", "llama.cpp", "--model", str(gguf), "--name", MODEL, "--no-config")
    with served(surroundings, *words, STAND_IN_FAULT="PARSES_CONTROL_TEXT") as (told, process):
        assert [each["id"] for each in told["verified"]["failed"]] == ["P8"]
        assert told["configuration"] is None
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 4
        assert process.stderr is not None
        said = process.stderr.read()
    assert "CRITICAL: P8 failed" in said
    assert "cure: " in said
    assert not configuration(surroundings).exists()


@pytest.fixture
def hang_ups_count() -> Iterator[None]:
    """Whoever runs the tests by nohup has them ignored, by what the tests start too."""
    usual = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, usual)


@pytest.mark.usefixtures("hang_ups_count")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP], ids=lambda each: each.name)
def test_the_server_and_its_workers_end_with_us(
    surroundings: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    words = ("--engine", "vllm", "--model", "o/m", "--name", MODEL, "--verify", "none", "--no-config")
    with served(surroundings, *words) as (_told, process):
        server = pids(tmp_path)
        assert all(map(alive, server))
        process.send_signal(number)
        process.wait(15)
    assert ended(*server)


def test_a_server_that_will_not_end_is_made_to(surroundings: dict[str, str], tmp_path: Path) -> None:
    words = ("--engine", "vllm", "--model", "o/m", "--name", MODEL, "--verify", "none", "--no-config")
    with served(surroundings, *words, STAND_IN_STUBBORN="1") as (_told, process):
        server = pids(tmp_path)
        process.terminate()
        process.wait(20)
    assert ended(*server)


def test_a_server_that_dies_first_is_named_with_its_last_lines(surroundings: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = ("--engine", "vllm", "--model", "o/m", "--port", "0", "--log", str(log))
    done = run(surroundings, *words, STAND_IN_DIES="started")
    assert done.returncode == 71
    assert "vllm ended by itself (exit code 3). Its last lines:" in done.stderr
    assert done.stderr.rstrip().endswith("  CUDA out of memory")
    assert log.read_bytes().endswith(b"CUDA out of memory\n")
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_server_that_dies_of_its_first_question_is_known_by_its_death(surroundings: dict[str, str]) -> None:
    words = ("--engine", "vllm", "--model", "o/m", "--name", MODEL, "--port", "0")
    done = run(surroundings, *words, STAND_IN_DIES="asked")
    assert (done.returncode, "vllm ended by itself (exit code 3)" in done.stderr) == (71, True), done.stderr
    assert not configuration(surroundings).exists()


def test_a_first_question_that_is_refused_ends_the_waiting_at_once(
    surroundings: dict[str, str], tmp_path: Path
) -> None:
    words = ("--engine", "vllm", "--model", "o/m", "--name", MODEL, "--port", "0")
    done = run(surroundings, *words, STAND_IN_REFUSES="1")
    assert (done.returncode, "force_tool_names" in done.stderr) == (77, True), done.stderr
    assert "pip install 'mistral-common<1.13'" in done.stderr, "the known cure stands among the remarks"
    assert ended(*pids(tmp_path))


def test_signals_that_the_caller_ignores_stay_ignored(surroundings: dict[str, str], tmp_path: Path) -> None:
    words = ["--engine", "vllm", "--model", "o/m", "--name", MODEL, "--verify", "none", "--no-config", "--port", "0"]
    ignoring = ["/bin/sh", "-c", 'trap "" INT HUP; exec "$@"', "sh", *COMMAND, "model", "serve", "--json", *words]
    with subprocess.Popen(ignoring, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()
        assert process.wait(15) == 0
    assert ended(*pids(tmp_path))


def test_waiting_has_an_end_and_names_what_was_waited_for(surroundings: dict[str, str], tmp_path: Path) -> None:
    # It never lists a model of this name.
    words = ("--engine", "vllm", "--model", "o/m", "--name", "other", "--port", "0", "--wait", "3")
    done = run(surroundings, *words)
    assert done.returncode == 69
    assert "does not answer after 3 seconds: it lists 'devstral'; --wait gives it longer" in done.stderr
    assert ended(*pids(tmp_path))


def test_the_key_reaches_the_server_and_no_file(surroundings: dict[str, str], gguf: Path) -> None:
    words = ("--engine", "llama.cpp", "--model", str(gguf), "--name", MODEL, "--key-env", "KEY", "--verify", "none")
    with served(surroundings, *words, KEY="a-secret-key") as (told, process):
        assert configuration(surroundings).read_text() == f'model = "openai:{MODEL}@{told["base_url"]}"\n'
        process.terminate()
        process.wait(15)
        assert process.stderr is not None
        assert "key=a-secret-key" in process.stderr.read(), "the stand-in tells what it got"


def test_a_server_that_has_the_model_is_taken_and_left_running(surroundings: dict[str, str]) -> None:
    with ScriptedServer() as there:
        port = there.url.rsplit(":", 1)[1].removesuffix("/v1")
        words = ("--engine", "vllm", "--model", "o/m", "--name", MODEL, "--port", port, "--verify", "none", "--json")
        done = run(surroundings, *words)
        other = run(surroundings, *words, "--name", "other")
        assert json.loads(run(surroundings, *words).stdout)["configuration"]["before"] is not None, "it serves still"
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["started"] is False
    assert "already: that one is taken" in done.stderr
    assert other.returncode == 78
    assert "is taken by a server with other models (devstral)" in other.stderr


def test_ollama_is_started_and_told_to_fetch_the_model(surroundings: dict[str, str], tmp_path: Path) -> None:
    with served(surroundings, "--engine", "ollama", "--model", MODEL, "--verify", "none") as (told, _process):
        assert (told["model"], (tmp_path / "fetched").exists()) == (MODEL, True)


def test_lm_studio_is_told_to_serve_and_goes_on(surroundings: dict[str, str], tmp_path: Path) -> None:
    words = ("--engine", "lmstudio", "--model", "o/m", "--name", MODEL, "--port", "0", "--verify", "none")
    done = run(surroundings, *words)
    daemon = int((tmp_path / "daemon").read_text())
    try:
        assert done.returncode == 0, done.stderr
        assert "lms server stop ends it" in done.stderr
        assert alive(daemon)
    finally:
        os.killpg(daemon, signal.SIGKILL)


def test_a_configuration_that_cannot_be_read_is_said_before_anything_starts(
    surroundings: dict[str, str], tmp_path: Path
) -> None:
    configuration(surroundings).parent.mkdir(parents=True)
    configuration(surroundings).write_text("modell = 1\n")
    done = run(surroundings, "--engine", "vllm", "--model", "o/m", "--port", "0")
    assert (done.returncode, "unknown setting 'modell'" in done.stderr) == (78, True)
    assert not (tmp_path / "pids").exists()


@pytest.mark.skipif(
    "LLAMA_SERVER" not in os.environ, reason="LLAMA_SERVER names no llama-server in llama.cpp's sources"
)
def test_the_real_llama_server_is_started_and_verified(
    surroundings: dict[str, str], tmp_path: Path, parrot: Callable[..., Path]
) -> None:
    real = Path(os.environ["LLAMA_SERVER"]).resolve()
    program = tmp_path / "bin" / "llama-server"
    program.unlink()
    program.symlink_to(real)
    model = tmp_path / "parrot.gguf"
    # Built in build/bin, beside what makes its files.
    convert = real.parents[2] / "convert_hf_to_gguf.py"
    subprocess.run(
        [sys.executable, convert, parrot("Hello there"), "--outfile", model],
        check=True,
        capture_output=True,
        timeout=60,
    )
    words = ("--engine", "llama.cpp", "--model", str(model), "--name", MODEL, "--context", "16000")
    with served(surroundings, *words) as (told, process):
        # As is said of it beforehand: user text becomes control tokens.
        assert "P8" in [each["id"] for each in told["verified"]["failed"]]
        asked = subprocess.run(
            [*COMMAND, "ask", "Hello?"], env=surroundings, capture_output=True, text=True, timeout=30, check=False
        )
        assert asked.stdout == "Hello there\n", asked.stderr
        process.terminate()
        assert process.wait(15) == 4
