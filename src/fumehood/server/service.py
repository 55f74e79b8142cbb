"""What every door works with: the engine, the store, and how an execution is run and kept."""

from __future__ import annotations

import ipaddress
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InvalidRequest, StoreUnavailable
from ..protocol.credentials import StoredSecret
from ..protocol.limits import MiB
from ..protocol.record import Record
from ..runtimes import functions, languages, packages, unknown
from .bounds import bounded
from .builder import Builder
from .doorman import Doorman
from .faults import Fault
from .gate import Gate
from .ids import new_id
from .live_sessions import LiveSessions
from .readiness import Readiness
from .store.common import now
from .store.executions import Execution
from .watching import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..engine import Engine
    from ..protocol.execution import ExecutionRequest, ExecutionResult
    from ..protocol.executor import OutputListener
    from ..protocol.limits import Limits
    from ..protocol.network import Network
    from .store.common import Caller
    from .store.keeping import Store

    #: Makes of an execution's id and its result what its door answers.
    Answer = Callable[[str, ExecutionResult], dict[str, Any]]

_MOST_PIDS = 4096


class Settings(Record):
    """What the operator decided.

    - `aliases`: from ids that programs carry to what is there: runtimes, tools, secrets.
    - `networks`: in which hosts may lie that rules name with networks of their own; none where it is empty.
    - `at_once`: executions at one time; `sessions`: sessions that live at one time.
    - `most_seconds`, `most_memory_bytes`, `most_output_bytes`: what an execution or a cell may ask for; files that it leaves are
      output too, four times as much.
    - `metrics`: who may read them without a key: nobody ("key"), who asks from this machine itself ("local"), anybody ("open").
    """

    aliases: Mapping[str, str] = {}
    networks: tuple[str, ...] = ()
    at_once: int = 64
    sessions: int = 256
    most_seconds: float = 900.0
    most_memory_bytes: int = 4096 * MiB
    most_output_bytes: int = 20 * MiB
    metrics: Literal["key", "local", "open"] = "key"


class Asked(Record):
    """How an execution was asked for: by which door, what kind of thing, and the request as it is kept, without credentials."""

    door: str
    kind: str
    request: Mapping[str, Any]
    language: str = ""
    tool_id: str | None = None
    session_id: str | None = None


class Service:
    """One for each server."""

    def __init__(self, engine: Engine, store: Store, settings: Settings | None = None) -> None:
        self.engine, self.store, self.settings = engine, store, settings or Settings()
        #: Seals the dashboard's cookies.
        self.vault = store.vault
        self.doorman = Doorman(store)
        self.gate = Gate(store, self.settings.at_once)
        self.builder = Builder(store, engine.without)
        #: For what runs as long as its program does.
        self.threads = ThreadPoolExecutor(4 * self.settings.at_once + 64, "fumehood-run")
        self.sessions = LiveSessions(self)
        self.watch, self.readiness = Watch(), Readiness(self)
        self._is_stopping = False
        self._networks = [ipaddress.ip_network(each) for each in self.settings.networks]

    def close(self) -> None:
        """End what runs in the background."""
        self.sessions.close()
        self.builder.close()
        self.threads.shutdown(wait=False, cancel_futures=True)

    def abort(self) -> None:
        """Kill all that runs, which is answered with a 503; nothing more is run."""
        self._is_stopping = True
        self.sessions.close()
        self.engine.close()

    def known(self, name: str) -> str:
        """Return what an id stands for here: itself, where it is no alias."""
        return self.settings.aliases.get(name, name)

    def language(self, caller: Caller, language: str, revision: str | None = None) -> str:
        """Return the engine's name for a language, or for a runtime's revision where one is asked for.

        Raises `InvalidRequest` where there is no such, a 503 where it is to be built here.
        """
        name = self.known(revision or language)
        if name.lower() in languages():
            if revision and name.lower().removesuffix("-data") != language.lower():
                raise InvalidRequest(f"runtime revision {revision!r} is of {name}, and the program of {language}")
            return name
        kept = self.store.runtimes.revision(caller.project_id, name)
        if kept is not None:
            if revision and kept.language != language.replace("typescript", "javascript"):
                raise InvalidRequest(
                    f"runtime revision {revision!r} is of {kept.language}, and the program of {language}"
                )
            return self.builder.ready(kept)
        # Those that the operator built for everybody; a project's own are found by their ids alone.
        if packages.own(name) is not None and not name.startswith("rt-"):
            return name
        if revision:
            raise InvalidRequest(f"no runtime has the revision {revision!r}: make it again, or name an alias for it")
        raise unknown(language)

    def with_secrets(self, caller: Caller, network: Network) -> Network:
        """Return a network with the texts of the project's stored secrets in it. Raises `InvalidRequest` where one is not there."""
        rules = []
        for rule in network.rules:
            secret = rule.credential.secret if rule.credential is not None else ""
            if rule.credential is not None and isinstance(secret, StoredSecret):
                text = self.store.secrets.text(caller.project_id, self.known(secret.id))
                if text is None:
                    raise InvalidRequest(f"host {rule.host!r}: there is no stored secret {secret.id!r}")
                rules.append(rule.replace(credential=rule.credential.with_secret(text)))
            else:
                rules.append(rule)
        return network.replace(allow=tuple(rules))

    def check(self, limits: Limits, network: Network) -> None:
        """Raise `InvalidRequest` where more is asked for than the operator gives."""
        s = self.settings
        for name, most in (
            ("wall_seconds", s.most_seconds), ("memory_bytes", s.most_memory_bytes), ("disk_bytes", s.most_memory_bytes),
            ("output_bytes", s.most_output_bytes), ("files_out_bytes", 4 * s.most_output_bytes), ("pids", _MOST_PIDS),
        ):  # fmt: skip
            if (asked_for := getattr(limits, name)) > most:
                raise InvalidRequest(f"limit {name} is {asked_for:g}: this server gives {most:g} at most")
        for rule in network.rules:
            for each in rule.addresses:
                asked = ipaddress.ip_network(each)
                if not any(asked.version == n.version and asked.subnet_of(n) for n in self._networks):  # type: ignore[arg-type]
                    raise InvalidRequest(f"host {rule.host!r}: this server lets nobody reach {each}; its operator can")

    def run(
        self, caller: Caller, asked: Asked, request: ExecutionRequest, answer: Answer, *,
        on_output: OutputListener | None = None, cancel: int | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Run a program and return what `answer` makes of its id and its result; kept, with what was asked, before this returns."""
        self.check(request.limits, request.network)
        if asked.language == "typescript" and packages.own_language(request.language) == "javascript":
            # Packages for Node.js are for both; the program's name says which it is in.
            request = request.replace(name=request.name or "main.ts")
        if request.network.has_credentials:
            request = request.replace(network=self.with_secrets(caller, request.network))
        execution, at = new_id(), now()
        with self.gate.running(caller), self.watch.execution(asked.door, request.language) as seen:
            self._check_stop()
            began = time.monotonic()
            try:
                result = self.engine.execute(request, on_output=on_output, cancel=cancel)
            finally:
                # What it was ended by is no fault of its own, and it may be run elsewhere.
                self._check_stop()
            took = time.monotonic() - began
            seen.ended(result.reason, warm=result.warm, refusals=len(result.refusals))
        said = answer(execution, result)
        kept = Execution(
            id=execution, key_id=caller.key_id, door=asked.door, kind=asked.kind, language=asked.language or request.language,
            started_at=at, duration_ms=round(took * 1000), cpu_ms=round(result.cpu_seconds * 1000),
            exit_code=result.exit_code, reason=result.reason, tool_id=asked.tool_id, session_id=asked.session_id,
            request=bounded(asked.request), response=bounded(said),
        )  # fmt: skip
        try:
            self.store.executions.add(caller.project_id, kept, result.connections, result.refusals)
        except StoreUnavailable as error:
            # Nothing that is not kept is answered for; and clients that try again would run it a second time.
            raise Fault(
                503,
                "the program ran, but that could not be kept: the service's database does not answer",
                retry_after=0,
            ) from error
        return said

    def _check_stop(self) -> None:
        if self._is_stopping:
            raise Fault(503, "the server is being stopped: ask again", retry_after=1)

    def run_function(
        self, caller: Caller, asked: Asked, request: ExecutionRequest, value: Any,
        answer: Callable[[str, ExecutionResult, functions.FunctionResult], dict[str, Any]], *, cancel: int | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Run a function, likewise; `value` is its input."""
        wrapped = functions.requested(request, value, asked.language)

        def answered(name: str, result: ExecutionResult) -> dict[str, Any]:
            return answer(name, result, functions.returned(result))

        return self.run(caller, asked, wrapped, answered, cancel=cancel)
