"""The option by which a command's programs get another kernel than the host's."""

from __future__ import annotations

from ..engine import ISOLATIONS
from .arguments import Option


def _known(text: str) -> str:
    if text not in ISOLATIONS:
        raise ValueError(f"choose one of {', '.join(ISOLATIONS)}")
    return text


ISOLATION = Option(
    name="isolation",
    metavar="NAME",
    convert=_known,
    default=ISOLATIONS[0],
    help=f"Whose kernel answers programs: {ISOLATIONS[0]} (the host's) or {ISOLATIONS[1]} (its own, by `runsc`; slower).",
)
