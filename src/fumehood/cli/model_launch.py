"""`fumehood model serve --engine …`: another engine's server, found or started, waited for, verified, and remembered."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..conformance.check import Outcome, Severity
from ..conformance.checks import CHECKS
from ..conformance.reports import counts
from ..conformance.running import NOTHING_PROVEN, exit_code
from ..errors import ConfigurationError, ModelServerEnded, ModelUnreachable
from ..llm import configuration, local_servers
from ..models import launching
from ..models.child import Child, opened
from ..models.machine import this_machine
from ..protocol.record import Record
from .model_verify import verified
from .model_waiting import Waiting
from .terminal import note, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from ..conformance.check import Check
    from ..conformance.reports import Report
    from ..llm.configuration import Remembered
    from .arguments import Arguments


class _Server(Record):
    """What is served: by which engine, where, under which name; whether by a process of ours."""

    engine: str
    url: str
    model: str
    started: bool


def launch(arguments: Arguments, key: str | None) -> int:
    """Do the command, and return the exit code of what was verified."""
    plan, wanted = _plan(arguments)
    if arguments.print:
        return _show(plan)
    if not arguments.no_config:
        # What cannot be written to later is said before anything is started.
        configuration.read(_configuration())
    with _ended_by_signals():
        if (model := _found(arguments, plan, wanted)) is not None:
            url = local_servers.url(wanted.host, wanted.port)
            note(printable(f"fumehood: {arguments.engine} serves {model} at {url} already: that one is taken"))
            server = _Server(engine=arguments.engine, url=url, model=model, started=False)
            code, told = _ready(arguments, server)
            _tell(arguments, told)
            return code
        return _started(arguments, plan, wanted, key or "")


def _plan(arguments: Arguments) -> tuple[launching.Launch, launching.Wanted]:
    model = os.path.expanduser(arguments.model)
    port = local_servers.LOCAL_SERVERS.get(arguments.engine, 0) if arguments.port is None else arguments.port
    wanted = launching.Wanted(
        model=model, name=arguments.name or Path(model).name, host=arguments.host,
        port=port or _free_port(arguments.host), context=arguments.context, machine=this_machine(),
        key_variable=arguments.key_env,
    )  # fmt: skip
    plan = launching.launch(arguments.engine, wanted)
    for remark in (plan.why, *plan.remarks):
        note(printable(f"fumehood: {arguments.engine}: {remark}"))
    return plan, wanted


def _free_port(host: str) -> int:
    try:
        with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            return int(listener.getsockname()[1])
    except OSError as error:
        raise ConfigurationError(f"--host {host}: nothing can listen there: {error.strerror}") from error


def _show(plan: launching.Launch) -> int:
    settings = [f"{name}={shlex.quote(value)}" for name, value in plan.environment]
    # By its variable: a key on the screen is in the terminal's history.
    keys = [f'{name}="${variable}"' for name, variable in plan.keys]
    for command in (plan.command, *plan.then):
        print(printable(" ".join([*settings, *keys, shlex.join(command)])))
    return 0


def _found(arguments: Arguments, plan: launching.Launch, wanted: launching.Wanted) -> str | None:
    """Return the name under which a server that is there already has the model.

    With a key none is looked for: it must not go to what merely listens, and one that asks for none is not what is wanted.
    """
    if arguments.key_env:
        return None
    names = local_servers.listed(wanted.port, local_servers.here(wanted.host))
    return next((each for each in (plan.name, wanted.model, f"{plan.name}:latest") if each in names), None)


def _started(arguments: Arguments, plan: launching.Launch, wanted: launching.Wanted, key: str) -> int:
    engine, url = arguments.engine, local_servers.url(wanted.host, wanted.port)
    listens = local_servers.listens(wanted.port, local_servers.here(wanted.host))
    if listens and not plan.then:
        has = ", ".join(local_servers.listed(wanted.port, local_servers.here(wanted.host))) or "none that it tells"
        raise ConfigurationError(
            f"{url} is taken by a server with other models ({has}): end it, choose another --port, or name one of its models"
        )
    _need_programs(plan)
    environment = _environment(plan)
    server = _Server(engine=engine, url=url, model=plan.name, started=not listens)
    waiting = Waiting(engine, url, plan.name, key=key, limit_seconds=arguments.wait)
    if listens or plan.ended_by:
        steps = plan.then if listens else (plan.command, *plan.then)
        _steps(arguments, steps, environment, waiting)
        waiting.until_it_answers()
        code, told = _ready(arguments, server)
        _tell(arguments, told)
        if plan.ended_by and not listens:
            note(f"fumehood: {engine} goes on by itself: {plan.ended_by} ends it")
        return code
    note(printable(f"fumehood: starting {shlex.join(plan.command)}"))
    log = Path(arguments.log) if arguments.log else None
    with Child(plan.command, environment, heard=_pass_on, log=log) as child:
        waiting.child = child
        if plan.then and waiting.until_it_lists():
            _steps(arguments, plan.then, environment, waiting)
        waiting.until_it_answers()
        code, told = _ready(arguments, server, child)
        # Whoever is told may end us at once, and is to hear what came of the checks.
        try:
            note(printable(f"fumehood: serving {plan.name} at {url}; Ctrl-C ends it"))
            _tell(arguments, told)
            child.wait()
        except KeyboardInterrupt:
            note(f"fumehood: ending {engine}")
    return code


def _need_programs(plan: launching.Launch) -> None:
    for command in (plan.command, *plan.then):
        if shutil.which(command[0]) is None:
            raise ConfigurationError(f"{command[0]} is not on PATH: {plan.get}; --print shows the command")
    if plan.module:
        # Not by importing it, which takes it many seconds.
        look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({plan.module!r}) is None)"
        python = plan.command[0]
        if subprocess.run((python, "-c", look), stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode:
            raise ConfigurationError(f"{python} has no module {plan.module}: {plan.get}; --print shows the command")


def _steps(arguments: Arguments, steps: Sequence[Sequence[str]], environment: dict[str, str], waiting: Waiting) -> None:
    """Run programs one after another, each to its end."""
    for command in steps:
        note(printable(f"fumehood: running {shlex.join(command)}"))
        try:
            with opened(Path(arguments.log or os.devnull)) as log:
                done = subprocess.run(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=log if arguments.log else 2,
                    stderr=subprocess.STDOUT, timeout=waiting.left_seconds(), check=False,
                )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise waiting.too_late(f"{shlex.join(command)} still runs") from None
        except OSError as error:
            raise ConfigurationError(f"{shlex.join(command)} cannot be run: {error.strerror}") from error
        if done.returncode:
            raise ModelServerEnded(f"{shlex.join(command)} failed with exit code {done.returncode}: it says why above")


def _ready(arguments: Arguments, server: _Server, child: Child | None = None) -> tuple[int, dict[str, Any]]:
    """Verify what is served, and write it into the configuration. Return the exit code, and what there is to tell.

    Raises `ModelServerEnded` where the child is what ended meanwhile: then nothing is written.
    """
    checks = [check for check in CHECKS if arguments.verify == "all" or check.severity is Severity.CRITICAL]
    try:
        report = None if arguments.verify == "none" else _verified(arguments, server, checks)
    except ModelUnreachable:
        if child is not None:
            child.wait(1)
        raise
    if child is not None:
        child.check()
    written = None if arguments.no_config else _remember(server, has_key=bool(arguments.key_env))
    code = exit_code(report.results) if report is not None else 0
    # That weights are too small to tell is for `model verify` to say: here nothing was found wrong.
    code = 0 if code == NOTHING_PROVEN else code
    return code, _as_json(server, report, written, code)


def _tell(arguments: Arguments, told: dict[str, Any]) -> None:
    if arguments.json:
        print(json.dumps(told), flush=True)


def _verified(arguments: Arguments, server: _Server, checks: Sequence[Check]) -> Report:
    note(f"fumehood: verifying {len(checks)} checks (--verify {arguments.verify})")
    report = verified(arguments, server.url, server.model, checks, note)
    told = ", ".join(f"{number} {outcome}" for outcome, number in counts(report.results).items() if number)
    note(f"fumehood: {told}, in {report.seconds:.1f} seconds")
    bad = [each.check for each in report.results if each.outcome is Outcome.FAIL]
    if critical := [check.id for check in bad if check.severity is Severity.CRITICAL]:
        note(
            f"fumehood: CRITICAL: {', '.join(critical)} failed: an agent may do what nobody asked for; the cures stand above"
        )
    return report


def _remember(server: _Server, *, has_key: bool) -> Remembered:
    # Only `openai` is sent a key, the one in OPENAI_API_KEY.
    kind = "openai" if has_key else server.engine
    written = configuration.remember(_configuration(), f"{kind}:{server.model}@{server.url}")
    if written.before == written.model:
        note(printable(f"fumehood: {written.path} names it already"))
    else:
        was = f" (before: {written.before})" if written.before else ""
        note(printable(f'fumehood: written to {written.path}: model = "{written.model}"{was}'))
    if has_key:
        note(
            "fumehood: fumehood ask sends the key that is in OPENAI_API_KEY, in the environment or in the .env beside it"
        )
    return written


def _as_json(server: _Server, report: Report | None, written: Remembered | None, code: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "engine": server.engine,
        "base_url": server.url,
        "model": server.model,
        "started": server.started,
    }
    told["verified"] = told["configuration"] = None
    if report is not None:
        failed = [
            {"id": each.check.id, "name": each.check.name, "severity": each.check.severity, "seen": each.seen,
             "meaning": each.check.meaning, "cure": each.check.cure}
            for each in report.results if each.outcome is Outcome.FAIL
        ]  # fmt: skip
        told["verified"] = {"outcomes": counts(report.results), "failed": failed, "exit_code": code}
    if written is not None:
        told["configuration"] = {"path": str(written.path), "model": written.model, "before": written.before}
    return told


def _environment(plan: launching.Launch) -> dict[str, str]:
    keys = {name: os.environ[variable] for name, variable in plan.keys}
    return {**os.environ, **dict(plan.environment), **keys}


def _configuration() -> Path:
    return configuration.folder() / configuration.NAME


def _pass_on(line: str) -> None:
    note(printable(line))


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and a terminal that closes end the command as Ctrl-C does: the server's end is then waited for."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            raise KeyboardInterrupt
        # By its own way: what runs asynchronously is then ended in good order.
        signal.raise_signal(signal.SIGINT)

    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # Whoever used nohup wants it to outlive the terminal.
        numbers.append(signal.SIGHUP)
    before = [(number, signal.signal(number, interrupt)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
