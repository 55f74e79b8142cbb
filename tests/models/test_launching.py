"""Other servers are started with the flags that the model needs, or shown how."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def serve(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fumehood", "model", "serve", *words],
        env={**os.environ, **more}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "a model.gguf"
    path.write_bytes(b"GGUF\3\0\0\0")
    return path


COMMANDS = {
    "vllm": ["--tokenizer-mode mistral", "--tool-call-parser mistral", "--enable-auto-tool-choice", "--max-model-len 262144",
             "--tensor-parallel-size", "--served-model-name devstral", "--host 127.0.0.1", "--port 8000"],
    "sglang": ["--tool-call-parser mistral", "--context-length 262144", "--tp"],
    "ollama": ["OLLAMA_CONTEXT_LENGTH=65536 ollama serve", "OLLAMA_HOST=127.0.0.1:8000"],
    "lmstudio": ["lms load o/m --identifier devstral --context-length 65536\nlms server start --port 8000"],
}  # fmt: skip


@pytest.mark.parametrize(("engine", "flags"), COMMANDS.items(), ids=COMMANDS.keys())
def test_the_command_has_the_flags_that_the_model_needs(engine: str, flags: list[str]) -> None:
    shown = serve("--engine", engine, "--model", "o/m", "--name", "devstral", "--print")
    assert shown.returncode == 0, shown.stderr
    assert [flag for flag in flags if flag not in shown.stdout] == []
    assert f"fumehood: {engine}: " in shown.stderr, "what stays wrong is said"


def test_a_key_is_shown_by_its_variable_alone_and_a_path_is_quoted(gguf: Path) -> None:
    words = (
        "--engine",
        "llama.cpp",
        "--model",
        str(gguf),
        "--context",
        "1000",
        "--host",
        "0.0.0.0",
        "--key-env",
        "KEY",
    )
    shown = serve(*words, "--print", KEY="a-secret-key")
    assert shown.stdout.startswith(f"LLAMA_API_KEY=\"$KEY\" llama-server --model '{gguf}' ")
    assert "--jinja --ctx-size 1000 --no-context-shift" in shown.stdout
    assert "a-secret-key" not in shown.stdout + shown.stderr


def test_the_server_is_started_in_our_place_with_its_key(gguf: Path, tmp_path: Path) -> None:
    stand_in = tmp_path / "bin" / "llama-server"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\necho "$LLAMA_API_KEY" "$@"\n')
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}:{os.environ['PATH']}"
    done = serve("--engine", "llama.cpp", "--model", str(gguf), "--key-env", "KEY", KEY="a-secret-key", PATH=path)
    assert done.stdout.startswith(f"a-secret-key --model {gguf} --alias 'a model.gguf'".replace("'", ""))


ENDS: dict[str, tuple[list[str], int, str]] = {
    "unknown_engine": (["--engine", "zork", "--model", "o/m"], 78, "vllm, sglang, llama.cpp, ollama, lmstudio"),
    "a_folder_that_lacks_files": (["--engine", "vllm", "--model", "/"], 66, "config.json"),
    "no_gguf": (["--engine", "llama.cpp", "--model", "/etc/passwd"], 66, "no file of the form .gguf"),
    "no_file": (["--engine", "llama.cpp", "--model", "o/m"], 66, "cannot be read"),
    "not_installed": (["--engine", "vllm", "--model", "o/m"], 78, "vllm is not installed here"),
    "several_steps": (["--engine", "lmstudio", "--model", "o/m"], 2, "--print shows them"),
    "a_key_that_cannot_be_given": (["--engine", "ollama", "--model", "m", "--key-env", "PATH"], 78, "knows no key"),
    "open_to_all": (["--engine", "vllm", "--model", "o/m", "--host", "0.0.0.0", "--print"], 78, "--key-env"),
    "nothing_to_print": (["--model", "/", "--print"], 2, "in this process"),
}


@pytest.mark.parametrize(("words", "code", "said"), ENDS.values(), ids=ENDS.keys())
def test_what_cannot_be_started_is_one_sentence(words: list[str], code: int, said: str) -> None:
    done = serve(*words)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
