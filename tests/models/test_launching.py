"""Other servers are started with the flags that the model needs, or shown how."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

StandIns = Callable[..., str]


def serve(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fumehood", "model", "serve", *words],
        env={**os.environ, **more}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


COMMANDS = {
    "vllm": ["--tokenizer-mode mistral", "--tool-call-parser mistral", "--enable-auto-tool-choice", "--max-model-len 262144",
             "--tensor-parallel-size 4", "--served-model-name devstral", "--host 127.0.0.1", "--port 8000"],
    "sglang": ["--tool-call-parser mistral", "--context-length 262144", "--tp 4", "--port 30000"],
    "ollama": ["OLLAMA_CONTEXT_LENGTH=262144 ollama serve", "OLLAMA_HOST=127.0.0.1:11434", "ollama pull o/m"],
    "lmstudio": ["lms server start --port 1234\nlms load o/m --identifier devstral --context-length 262144"],
}  # fmt: skip


@pytest.fixture
def cards(tmp_path: Path) -> Callable[..., str]:
    """Return a function that makes an `nvidia-smi` which tells of accelerators with so many MiB, and returns the PATH."""

    def made(*mebibytes: int) -> str:
        program = tmp_path / "cards" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\n" + "".join(f"echo {each}\n" for each in mebibytes))
        program.chmod(0o755)
        return f"{program.parent}:{os.environ['PATH']}"

    return made


@pytest.mark.parametrize(("engine", "flags"), COMMANDS.items(), ids=COMMANDS.keys())
def test_the_command_has_the_flags_that_the_model_needs(
    engine: str, flags: list[str], cards: Callable[..., str]
) -> None:
    path = cards(*[81559] * 5)
    shown = serve("--engine", engine, "--model", "o/m", "--name", "devstral", "--print", PATH=path)
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


ROOMS: dict[str, tuple[tuple[int, ...], dict[str, str], str, str]] = {
    "one_large": ((81559,), {}, "--max-model-len 262144 --tensor-parallel-size 1", "the model's whole one"),
    "one_middling": ((49140,), {}, "--max-model-len 96256 --tensor-parallel-size 1", "85% of 48.0 GiB (1 accelerator) less 26.0 GiB"),
    "two_small": ((24564, 24564), {}, "--max-model-len 96256 --tensor-parallel-size 2", "(2 accelerators)"),
    "hidden": ((49140, 49140), {"CUDA_VISIBLE_DEVICES": "1"}, "--tensor-parallel-size 1", "(1 accelerator)"),
    "too_small": ((8192,), {}, "--max-model-len 8192", "which may not fit"),
    "none": ((), {}, "VLLM_CPU_KVCACHE_SPACE=", "this machine's memory"),
}  # fmt: skip


@pytest.mark.parametrize(("mebibytes", "more", "flags", "why"), ROOMS.values(), ids=ROOMS.keys())
def test_accelerators_and_context_are_by_what_the_machine_has_and_it_says_so(
    mebibytes: tuple[int, ...], more: dict[str, str], flags: str, why: str, cards: Callable[..., str]
) -> None:
    shown = serve("--engine", "vllm", "--model", "o/m", "--print", PATH=cards(*mebibytes), **more)
    assert flags in shown.stdout
    assert why in shown.stderr


ENDS: dict[str, tuple[list[str], int, str]] = {
    "unknown_engine": (["--engine", "zork", "--model", "o/m"], 78, "vllm, sglang, llama.cpp, ollama, lmstudio"),
    "a_folder_that_lacks_files": (["--engine", "vllm", "--model", "/"], 66, "config.json"),
    "no_gguf": (["--engine", "llama.cpp", "--model", "/etc/passwd"], 66, "no file of the form .gguf"),
    "no_file": (["--engine", "llama.cpp", "--model", "o/m"], 66, "cannot be read"),
    "not_installed": (
        ["--engine", "vllm", "--model", "o/m", "--port", "0"],
        78,
        "vllm is not on PATH: pip install vllm",
    ),
    "no_module": (
        ["--engine", "sglang", "--model", "o/m", "--port", "0"],
        78,
        "has no module sglang: pip install sglang",
    ),
    "no_extent": (["--engine", "vllm", "--model", "o/m", "--verify", "some"], 2, "critical, all or none"),
    "no_time": (["--engine", "vllm", "--model", "o/m", "--wait", "0"], 2, "more than 0"),
    "nowhere_to_log": (
        ["--engine", "llama.cpp", "--model", "GGUF", "--port", "0", "--log", "/nowhere/x"],
        64,
        "/nowhere/x",
    ),
    "a_key_that_cannot_be_given": (["--engine", "ollama", "--model", "m", "--key-env", "PATH"], 78, "knows no key"),
    "open_to_all": (["--engine", "vllm", "--model", "o/m", "--host", "0.0.0.0", "--print"], 78, "--key-env"),
    "nothing_to_print": (["--model", "/", "--print"], 2, "in this process"),
}


@pytest.mark.parametrize(("words", "code", "said"), ENDS.values(), ids=ENDS.keys())
def test_what_cannot_be_started_is_one_sentence(
    words: list[str], code: int, said: str, gguf: Path, stand_ins: StandIns
) -> None:
    path = stand_ins("llama-server")
    done = serve(*[str(gguf) if word == "GGUF" else word for word in words], PATH=path)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
