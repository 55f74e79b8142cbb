"""Waiting where a server asks for it: it refused a question unread, and said when to come back (RFC 9110, 10.2.3).

Without such words nothing is repeated: a question may have cost money and time already.
"""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from .port import Note, Quirk

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How long a server may make us wait for one answer, all refusals together.
LONGEST_SECONDS = 60.0

_TOO_MANY, _UNAVAILABLE = 429, 503
_MOST_WAITS = 3


class Patience:
    """How often and how long one question has waited."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self._left_seconds = LONGEST_SECONDS

    def wait(self, seconds: float) -> bool:
        """Wait as long as a server asked for; False, at once, where that is too long or too often."""
        if seconds > self._left_seconds or len(self.notes) >= _MOST_WAITS:
            return False
        time.sleep(seconds)
        self._left_seconds -= seconds
        words = f"the server was busy and asked for {seconds:g} seconds: the question was asked again"
        self.notes.append(Note(quirk=Quirk.ASKED_TO_WAIT, words=words))
        return True


def retry_after_seconds(status: int, headers: Mapping[str, str]) -> float | None:
    """Return the seconds after which a refusing server wants to be asked again; None where it does not say."""
    words = headers.get("retry-after", "").strip()
    if status not in (_TOO_MANY, _UNAVAILABLE) or not words:
        return None
    try:
        seconds = float(words)
    except ValueError:
        try:
            seconds = math.ceil(parsedate_to_datetime(words).timestamp() - time.time())
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
