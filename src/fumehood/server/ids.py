"""Ids of what the service keeps: ULIDs, 26 characters that sort by the time they were made (github.com/ulid/spec)."""

from __future__ import annotations

import secrets
import threading
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80
_lock = threading.Lock()
_latest = 0


def new_id() -> str:
    """Return an id that is greater than all that this process made before."""
    global _latest  # noqa: PLW0603 - one order for the whole process is the point
    number = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    with _lock:
        # Two of one millisecond, or a clock that was set back: lists are read by their last id, so none may sort before it.
        number = _latest = max(number, _latest + 1)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
