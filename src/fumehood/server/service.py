"""What every door works with: the engine, the store, and how an execution is run and kept."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from ..runtimes import functions, languages, packages
from .ids import new_id
from .store.keeping import Execution, now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..engine import Engine
    from ..protocol.execution import ExecutionRequest, ExecutionResult
    from ..runtimes.functions import FunctionResult
    from .store.keeping import Caller, Store

    #: What a door was asked for, as it is kept: without credentials.
    Asked = dict[str, Any]
    ScriptAnswer = Callable[[str, ExecutionResult], dict[str, Any]]
    FunctionAnswer = Callable[[str, ExecutionResult, FunctionResult], dict[str, Any]]


class Service:
    """One for each server. `aliases` lead from ids that programs carry to what is there: runtimes, tools, secrets."""

    def __init__(self, engine: Engine, store: Store, aliases: Mapping[str, str]) -> None:
        self.engine, self.store, self._aliases = engine, store, dict(aliases)

    def known(self, name: str) -> str:
        """Return what an id stands for here: itself, where it is no alias."""
        return self._aliases.get(name, name)

    def language(self, language: str, revision: str | None) -> str:
        """Return the runtime's name for a language, or for a runtime's revision where one is asked for. Raises `InvalidRequest`."""
        if not revision:
            return language
        name = self.known(revision)
        if name not in languages() and packages.own(name) is None:
            raise InvalidRequest(f"no runtime has the revision {revision!r}: make it again, or name an alias for it")
        return name

    def script(self, caller: Caller, request: ExecutionRequest, asked: Asked, answer: ScriptAnswer) -> dict[str, Any]:
        """Run a program and return what `answer` makes of its id and its result; kept, with what was asked, before this returns."""
        begun = _Begun("script", request.language, asked)
        result = self.engine.execute(request)
        said = answer(begun.id, result)
        self.store.add_execution(caller.project_id, begun.ended(result, said))
        return said

    def function(
        self, caller: Caller, request: ExecutionRequest, value: Any, family: str, asked: Asked, answer: FunctionAnswer,
        *, tool: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Run a function, likewise; `tool` is whose it is."""
        begun = _Begun("function" if tool is None else "tool", family, asked)
        result = self.engine.execute(functions.requested(request, value, family))
        said = answer(begun.id, result, functions.returned(result))
        self.store.add_execution(caller.project_id, begun.ended(result, said).replace(tool_id=tool))
        return said


class _Begun:
    """An execution that has begun."""

    def __init__(self, kind: str, language: str, asked: Asked) -> None:
        self.id = new_id()
        self._kind, self._language, self._asked = kind, language, asked
        self._at, self._began = now(), time.monotonic()

    def ended(self, result: ExecutionResult, said: dict[str, Any]) -> Execution:
        return Execution(
            id=self.id, kind=self._kind, language=self._language, started_at=self._at,
            duration_ms=round((time.monotonic() - self._began) * 1000), exit_code=result.exit_code, request=self._asked,
            response=said,
        )  # fmt: skip
