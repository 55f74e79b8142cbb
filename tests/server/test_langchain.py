"""LangChain's tools for Riza, unmodified, over the service."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

with warnings.catch_warnings():
    # It says that nobody works on it any more; its users' programs are there all the same.
    warnings.filterwarnings("ignore", message="`langchain-community` is being sunset", category=DeprecationWarning)
    from langchain_community.tools.riza.command import ExecJavaScript, ExecPython

from tests.testing.served import KEY, Served

ALIAS = "01JM3WYPDEADRUNTIMEOFOLD00"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, database: tuple[str, ...]) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("data"), *database, "--alias", f"{ALIAS}=python") as served:
        yield served


@pytest.fixture(autouse=True)
def environment(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two variables that are all that changes."""
    monkeypatch.setenv("RIZA_BASE_URL", served.url)
    monkeypatch.setenv("RIZA_API_KEY", KEY)


def called(tool: Any, code: str) -> Any:
    return tool.invoke({"type": "tool_call", "id": "call1", "name": tool.name, "args": {"code": code}})


def test_a_program_gives_what_it_prints() -> None:
    assert ExecPython().invoke("x = 5; print(x)") == "5\n"
    assert ExecPython().invoke({"code": "import requests, httpx; print('both')"}) == "both\n"
    assert ExecJavaScript().invoke("console.log(JSON.stringify({a: typeof fetch}))") == '{"a":"function"}\n'


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("1/0", "ZeroDivisionError"), ("import sys; sys.exit('no')", "no"), ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        ("a = []\nwhile True: a.append(bytes(1 << 20))", ""),
    ],
    ids=["raises", "exits", "killed", "memory"],
)  # fmt: skip
def test_a_program_that_fails_is_an_error_that_the_model_can_read(code: str, says: str) -> None:
    answer = called(ExecPython(), code)
    assert answer.status == "error"
    assert answer.content.startswith(
        "Riza code execution returned a non-zero exit code. The output captured from stderr was:\n"
    )
    assert says in answer.content


def test_a_program_of_javascript_that_fails_is_an_error() -> None:
    assert "ReferenceError" in called(ExecJavaScript(), "nothing").content


def test_a_runtime_that_a_program_carries_the_old_id_of_is_found() -> None:
    assert ExecPython(runtime_revision_id=ALIAS).invoke("print(1)") == "1\n"


def test_an_unknown_runtime_is_an_error_that_names_it() -> None:
    from rizaio import BadRequestError

    with pytest.raises(BadRequestError, match="01JM3WYPNOBODYHASTHISONE00"):
        ExecPython(runtime_revision_id="01JM3WYPNOBODYHASTHISONE00").invoke("print(1)")


async def _ainvoked(code: str) -> str:
    return str(await ExecPython().ainvoke(code))


def test_an_asynchronous_agent_can_use_it() -> None:
    import asyncio

    assert asyncio.run(_ainvoked("print(2)")) == "2\n"
