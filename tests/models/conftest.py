"""Tiny models, made once, and loaded as a real one is. Where torch is not installed these tests are skipped."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.testing.tiny_models import Parrot, random_model

if TYPE_CHECKING:
    from fumehood.models.loading import Model

#: For commands that load a model: see `_need_torch`.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
#: The tool that `fumehood ask` offers.
RUN = {
    "type": "function",
    "function": {
        "name": "exec_python",
        "description": "Run.",
        "parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
    },
}


def _need_torch() -> None:
    torch = pytest.importorskip(
        "torch", reason="torch is not installed: ./scripts/test installs it where pip has a CPU build"
    )
    # Threads that wait for one another on a busy machine cost such small networks ten times their work.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def parrot(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that makes a parrot, which says a script after the question and one after a tool's result."""
    _need_torch()

    def made(*script: str, then: tuple[str, ...] = ("Done",), context: int = 32_768) -> Path:
        both = Parrot().says("[/INST]", *script).says("[/TOOL_RESULTS]", *then)
        return both.save(tmp_path_factory.mktemp("models") / "parrot", context=context)

    return made


@pytest.fixture(scope="session")
def noise_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model with random weights."""
    _need_torch()
    return random_model(tmp_path_factory.mktemp("models") / "noise", context=4096)


@pytest.fixture(scope="session")
def noise(noise_folder: Path) -> Model:
    """Return it loaded."""
    from fumehood.models.loading import load

    return load(noise_folder)


@pytest.fixture
def load() -> Callable[..., Model]:
    """Return the function that loads a model, imported when there is torch."""
    from fumehood.models import loading

    return loading.load


def asked(text: Any = "Go on.", **fields: Any) -> dict[str, Any]:
    """Return the body of a request, at temperature 0 unless told otherwise."""
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, **fields}


@pytest.fixture
def stand_ins(tmp_path: Path) -> Callable[..., str]:
    """Return a function that makes programs with these names out of `stand_in.py`, and returns the PATH where they are."""

    def made(*names: str) -> str:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name in names:
            program = folder / name
            root = Path(__file__).parents[2]
            program.write_text(
                f'#!/bin/sh\nPYTHONPATH={root} exec {sys.executable} -m tests.models.stand_in {name} "$@"\n'
            )
            program.chmod(0o755)
        return f"{folder}:{os.environ['PATH']}"

    return made


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """Return a file that begins as llama.cpp's do."""
    path = tmp_path / "a model.gguf"
    path.write_bytes(b"GGUF\3\0\0\0")
    return path
