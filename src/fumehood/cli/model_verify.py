"""`fumehood model verify`: prove a model server right, or name what it gets wrong."""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..conformance.check import Outcome
from ..conformance.checks import FAMILIES, chosen
from ..conformance.files import PROMPTS, TOKENIZER, place, system_prompt
from ..conformance.page import page
from ..conformance.reports import Report, as_json, as_junit, counts, described
from ..conformance.running import exit_code, run
from ..conformance.talk import Setup
from ..conformance.wire import Wire
from ..engine import Engine
from ..errors import ConfigurationError, InvalidRequest
from .arguments import Arguments, Option, UsageError, seconds
from .progress import Building
from .server import ISOLATION, SERVER, isolation_of, remote
from .terminal import note, printable, wants_colour

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

    from ..conformance.check import Check, Result
    from ..protocol.executor import Executor

#: Of each answer; with a prompt of 250,000 tokens before it, it takes longer.
_SECONDS, _LONG_SECONDS = 60.0, 1800.0
_COLOURS = {Outcome.PASS: "\x1b[32m", Outcome.FAIL: "\x1b[31m"}


def verify(arguments: Arguments) -> int:
    """Do the command. Exit code 0 where something passed and nothing failed; 1, 3, 4 by the worst failure's severity."""
    checks = chosen(arguments.only)
    if arguments.list:
        return _list(checks, as_value=arguments.json)
    if not arguments.base_url or not arguments.model:
        raise UsageError(
            "say which server and model: fumehood model verify --base-url http://127.0.0.1:8000/v1 --model NAME"
        )
    with ExitStack() as stack:
        # Opened before anything is asked: who cannot keep a report learns it now and not after the run.
        junit, html = (_opened(stack, name) for name in (arguments.junit, arguments.html))
        say = None if arguments.json else _print
        report = verified(arguments, arguments.base_url, arguments.model, checks, say)
        if arguments.json:
            print(json.dumps(as_json(report), indent=2), flush=True)
        else:
            told = ", ".join(f"{number} {outcome}" for outcome, number in counts(report.results).items() if number)
            print(f"\n{told}, in {report.seconds:.1f} seconds", flush=True)
        _write(junit, as_junit, report)
        _write(html, page, report)
    return exit_code(report.results)


def verified(
    arguments: Arguments, base_url: str, model: str, checks: Sequence[Check], say: Callable[[str], None] | None
) -> Report:
    """Run the checks; `say` hears of each as it ends."""
    begun, clock = datetime.now(UTC), time.monotonic()
    results = []
    usual = _LONG_SECONDS if arguments.long else _SECONDS
    timeout = usual if arguments.timeout is None else arguments.timeout
    with ExitStack() as stack, Wire(base_url, key=_key(arguments.key_env), timeout_seconds=timeout) as wire:
        setup = _setup(arguments, stack)
        for result in run(wire, model, checks, setup):
            results.append(result)
            if say is not None:
                _show(result, say)
    return Report(
        base_url=base_url, model=model, version=__version__, results=tuple(results),
        begun=begun.isoformat(timespec="seconds"), seconds=time.monotonic() - clock,
    )  # fmt: skip


def _setup(arguments: Arguments, stack: ExitStack) -> Setup:
    def executor() -> Executor:
        if there := remote(arguments):
            return stack.enter_context(there)
        here = Engine(without=arguments.without, isolation=isolation_of(arguments), notice=Building())
        return stack.enter_context(here)

    return Setup(
        tokenizer=place(arguments.tokenizer, TOKENIZER) if arguments.tokenizer else None,
        system_prompt=system_prompt(place(arguments.system_prompt, *PROMPTS)) if arguments.system_prompt else None,
        long=arguments.long, executor=executor,
    )  # fmt: skip


def _key(variable: str | None) -> str:
    if variable is None:
        return ""
    key = os.environ.get(variable, "")
    if not key:
        raise ConfigurationError(f"--key-env {variable}: there is no such environment variable, or it is empty")
    return key


def _print(line: str) -> None:
    print(line, flush=True)


def _show(result: Result, say: Callable[[str], None]) -> None:
    stream = 1 if say is _print else 2
    colour, plain = (_COLOURS.get(result.outcome, "\x1b[33m"), "\x1b[0m") if wants_colour(stream) else ("", "")
    check = result.check
    say(f"{colour}{result.outcome:<18}{plain} {check.id:<5} {check.name:<30} {printable(result.seen)}")
    if result.outcome is Outcome.FAIL:
        say(f"{'':<19}{check.severity}: {check.meaning}\n{'':<19}cure: {check.cure}")


def _list(checks: Sequence[Check], *, as_value: bool) -> int:
    if as_value:
        print(json.dumps([described(check) for check in checks], indent=2))
        return 0
    for family in FAMILIES:
        listed = [check for check in family if check in checks]
        if listed:
            print(f"{family.title}:")
            print("".join(f"  {check.id:<5} {check.name:<30} {check.severity:<9} {check.proves}\n" for check in listed))
    return 0


def _opened(stack: ExitStack, name: str | None) -> TextIO | None:
    if not name:
        return None
    try:
        # To be added to: what is there stays until there is a report in its place.
        return stack.enter_context(open(name, "a", encoding="utf-8"))
    except OSError as error:
        raise _unwritable(name, error) from error


def _write(file: TextIO | None, form: Callable[[Report], str], report: Report) -> None:
    if file is None:
        return
    try:
        with file:
            if Path(file.name).is_file():  # devices and pipes have nothing to cut
                file.truncate(0)
            file.write(form(report))
    except OSError as error:
        raise _unwritable(file.name, error) from error
    note(printable(f"fumehood: written to {file.name}"))


def _unwritable(name: str, error: OSError) -> InvalidRequest:
    return InvalidRequest(f"{name!r} cannot be written: {error.strerror}; name a file in a folder where you may write")


DESCRIPTION = (
    "verify: ask an OpenAI-compatible or Mistral server some two hundred questions and judge its answers byte by byte: the "
    "prompt by its length, tool calls, streams, JSON, the context, errors, and the tests of Devstral's card, whose tools are "
    "executed in the sandbox. A check passes, fails, is skipped with its reason, "
    "or needs real weights, where the model's words show nothing of the server. The prompt's numbers are those of Devstral "
    "Small 2's tokenizer. Exit code 0: something passed and nothing failed; 1, 3, 4: the worst failure is minor, major, "
    "critical; 5: nothing passed; 69: no server."
)
OPTIONS = (
    Option(name="base-url", metavar="URL", help="The server, up to where /chat/completions begins."),
    Option(name="timeout", short="t", metavar="SECONDS", convert=seconds, help="Of each answer (60; with --long 1800)."),
    Option(name="tokenizer", metavar="FILE", help="The model's own tekken.json, its folder, or hub:OWNER/NAME (P1, P11, X1, T3)."),
    Option(name="system-prompt", metavar="FILE", help="The card's system prompt with {name}, {today} and {yesterday}, the model's "
           "folder as the hub has it, or hub:OWNER/NAME to fetch it, for T1 to T6 (a short one of ours)."),
    Option(name="long", help="The long context at the card's full size, 24,004 messages, as far as the context allows."),
    Option(name="only", metavar="ID", many=True, help="Run these alone: an id like P8, a name, or a family's letter."),
    Option(name="list", help="Name all checks, with their severity and what they prove, and ask nothing."),
    Option(name="json",
           help="Print the results as JSON; with --list, the checks. serve: where another engine serves, once it does."),
    Option(name="junit", metavar="FILE", help="Write JUnit XML as well."),
    Option(name="html", metavar="FILE", help="Write one page with every request and response as well."),
    SERVER,
    ISOLATION,
    Option(name="without", metavar="WALL", many=True, help="Give up a wall that this host cannot put up."),
)  # fmt: skip
EXAMPLES = (
    "fumehood model verify --base-url http://127.0.0.1:8000/v1 --model devstral",
    "fumehood model verify --base-url http://127.0.0.1:8080/v1 --model devstral --only C8 --only C9",
    "fumehood model verify --base-url https://api.mistral.ai/v1 --model devstral-small-latest \\",
    "    --key-env MISTRAL_API_KEY --html report.html",
    "fumehood model verify --list",
)
