"""Runs checks one after another, and says what the whole is worth."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..errors import ModelRefused, ModelUnreachable
from .check import Outcome, Result, Severity
from .reading import quote
from .talk import Memory, Setup, Talk
from .verdicts import Failed, NeedsRealWeights, Skipped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .check import Check
    from .wire import Wire

#: What the command ends with. 2 is usage's, and 69 a server that cannot be reached.
EXIT_CODES = {Severity.MINOR: 1, Severity.MAJOR: 3, Severity.CRITICAL: 4}
NOTHING_PROVEN = 5
#: Each costs a timeout or more: a server that hangs would hold up two hundred questions.
_MOST_SILENT = 3


def run(wire: Wire, model: str, checks: Sequence[Check], setup: Setup = Setup()) -> Iterator[Result]:  # noqa: B008 - frozen
    """Yield each check's result as it comes.

    Raises `ModelUnreachable` where there is no server at all, or none that answers in time, `ModelRefused` where it does not
    take the key: each check would only find that.
    """
    memory, silent = Memory(), 0
    first = Talk(wire, model, memory, setup)
    first.look()
    plain = first.plain()
    if plain.status in (401, 403):
        words = wire.without_key(quote(plain.text, 120))
        raise ModelRefused(f"{wire.base_url} answers {plain.status}: {words}; name the key's variable by --key-env")
    for check in checks:
        if silent == _MOST_SILENT:
            seen = f"the server did not answer in time, or at all, in the {silent} checks before: the rest is not asked"
            yield Result(check=check, outcome=Outcome.SKIPPED, seen=seen, seconds=0.0, exchanges=())
            continue
        result = _one(check, talk := Talk(wire, model, memory, setup), wire)
        silent = silent + 1 if talk.met_silence else 0
        yield result


def exit_code(results: Sequence[Result]) -> int:
    """Return 0 where something passed and nothing failed, else the code of the worst failure."""
    failed = [result.check.severity for result in results if result.outcome is Outcome.FAIL]
    if failed:
        return max(EXIT_CODES[severity] for severity in failed)
    return 0 if any(result.outcome is Outcome.PASS for result in results) else NOTHING_PROVEN


def _one(check: Check, talk: Talk, wire: Wire) -> Result:
    begun = time.monotonic()
    try:
        outcome, seen = Outcome.PASS, check.run(talk)
    except (Failed, ModelUnreachable) as error:
        outcome, seen = Outcome.FAIL, str(error)
    except RecursionError:
        outcome, seen = Outcome.FAIL, "the answer is nested too deep to be read"
    except Skipped as error:
        outcome, seen = Outcome.SKIPPED, str(error)
    except NeedsRealWeights as error:
        outcome, seen = Outcome.NEEDS_REAL_WEIGHTS, str(error)
    seconds = time.monotonic() - begun
    # Once more: in the bodies the key could not be seen where JSON spelled it with escapes.
    seen = wire.without_key(seen)
    return Result(check=check, outcome=outcome, seen=seen, seconds=seconds, exchanges=tuple(talk.exchanges))
