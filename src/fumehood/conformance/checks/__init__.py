"""The registry of checks: what is not named here is not run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import InvalidRequest
from .calls import CALLS
from .card import CARD
from .choice import CHOICE
from .context import CONTEXT
from .errors import ERRORS
from .exact import EXACT
from .history import HISTORY
from .identity import IDENTITY
from .json_mode import JSON_MODE
from .prompt import PROMPT
from .stream import STREAM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..check import Check

FAMILIES = (IDENTITY, PROMPT, EXACT, CALLS, CHOICE, HISTORY, STREAM, JSON_MODE, CONTEXT, ERRORS, CARD)
CHECKS: tuple[Check, ...] = tuple(check for family in FAMILIES for check in family)


def chosen(names: Sequence[str]) -> tuple[Check, ...]:
    """Return the checks of these ids, names or family letters, in their order; all where none is given. C11 is C11a to C11d.

    Raises `InvalidRequest` for one that there is not.
    """
    for name in names:
        if not any(_is(check, name) for check in CHECKS):
            raise InvalidRequest(f"there is no check {name!r}: `fumehood model verify --list` names them all")
    return tuple(check for check in CHECKS if not names or any(_is(check, name) for name in names))


def family_of(check: Check) -> str:
    """Return the title of the family that the check is of; "" for one that is not in the registry."""
    return next((family.title for family in FAMILIES if any(each.id == check.id for each in family)), "")


def _is(check: Check, name: str) -> bool:
    id_ = check.id.lower()
    return name.lower() in (id_, id_.rstrip("abcd"), check.name, id_[0])
