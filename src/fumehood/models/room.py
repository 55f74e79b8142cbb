"""How long a context the memory has room for, beside the weights, and how that was reckoned.

Keys and values of one token take `KV_BYTES`: 40 layers, 8 heads of 128 numbers, two of them, in 16 bits. A server that keeps
them smaller has room to spare; one whose model is another's is told by `--context`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..protocol.record import Record

if TYPE_CHECKING:
    from .machine import Machine

#: The card's, in tokens.
CONTEXT = 262_144
#: Where nothing is known of the memory.
SMALL_CONTEXT = 65_536
#: An agent's prompt with its tools and a few files does not fit less.
LEAST_CONTEXT = 8_192
KV_BYTES = 40 * 8 * 128 * 2 * 2
# As the model's page has it: 24 thousand million numbers of 8 bits, and some of 16.
_WEIGHTS_BYTES = 26 << 30
# As it is usually fetched where memory is small: of 4 bits.
_SMALL_WEIGHTS_BYTES = 16 << 30
# vLLM's own share of an accelerator, less what it computes in; and half of what is free of a machine that has other work.
_SHARE_OF_ACCELERATORS, _SHARE_OF_MEMORY = 0.85, 0.5
_STEP = 1024


class Room(Record):
    """A context in tokens, and the sentence that says why."""

    tokens: int
    why: str


def room(machine: Machine, model: str, *, parallel: int, small: bool) -> Room:
    """Return the context for a model on this many of the machine's accelerators, or in its memory where there is none.

    `small` says that a model without files here is one of 4 bits.
    """
    weights = _weights(Path(model)) or (_SMALL_WEIGHTS_BYTES if small else _WEIGHTS_BYTES)
    if machine.accelerators:
        has, share = machine.accelerator_bytes * parallel, _SHARE_OF_ACCELERATORS
        where = f"{parallel} accelerator{'s' if parallel > 1 else ''}"
    else:
        has, share, where = machine.memory_bytes, _SHARE_OF_MEMORY, "this machine's memory"
    if not has:
        tokens = SMALL_CONTEXT if small else CONTEXT
        return Room(tokens=tokens, why=f"a context of {tokens} tokens: how much {where} can hold is not known")
    left = int(has * share) - weights
    fits = left // KV_BYTES // _STEP * _STEP
    reckoned = f"{share:.0%} of {_gib(has)} ({where}) less {_gib(weights)} of weights, at {KV_BYTES >> 10} KiB a token"
    if fits < LEAST_CONTEXT:
        return Room(
            tokens=LEAST_CONTEXT,
            why=f"a context of {LEAST_CONTEXT} tokens, which may not fit: {reckoned}; see --context",
        )
    if fits >= CONTEXT:
        return Room(tokens=CONTEXT, why=f"a context of {CONTEXT} tokens, the model's whole one: {reckoned}")
    return Room(tokens=fits, why=f"a context of {fits} tokens: {reckoned}")


def _weights(path: Path) -> int:
    """Return the size of the weights that lie on this machine; 0 where they are fetched."""
    try:
        if path.is_dir():
            return sum(each.stat().st_size for each in path.glob("*.safetensors"))
        return path.stat().st_size
    except OSError:
        return 0


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
