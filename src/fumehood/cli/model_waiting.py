"""Waits for a server that was started, says what for, and gives up in time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..conformance.readiness import answers, lacks, listens
from ..conformance.wire import Wire
from ..errors import ModelRefused, ModelUnreachable
from .terminal import note, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..models.child import Child

_PAUSE_SECONDS = 0.2
# Of an answer that needs no model.
_LOOK_SECONDS = 5.0
# A load takes minutes: what has not changed is said again after this long.
_SAY_AGAIN_SECONDS = 15.0


class Waiting:
    """One server's; the time begins now. `child` is its process, where it is ours: its death ends the waiting."""

    def __init__(self, engine: str, url: str, model: str, *, key: str, limit_seconds: float) -> None:
        self.child: Child | None = None
        self._engine, self._url, self._model, self._key = engine, url, model, key
        self._limit_seconds = limit_seconds
        self._begun = time.monotonic()
        self._said = ("", 0.0)

    def left_seconds(self) -> float:
        """Return how much of the time is left, and never nothing."""
        return max(0.1, self._begun + self._limit_seconds - time.monotonic())

    def too_late(self, missing: str) -> ModelUnreachable:
        """Return the error for a time that is over."""
        return ModelUnreachable(
            f"{self._engine} at {self._url} does not answer after {self._limit_seconds:g} seconds: {missing}; "
            "--wait gives it longer"
        )

    def until_it_lists(self) -> bool:
        """Wait until it says which models it has; return whether ours is to be fetched yet."""
        missing = ""

        def look() -> str:
            nonlocal missing
            missing = lacks(wire, self._model)
            return "" if listens(missing) else missing

        with self._wire(_LOOK_SECONDS) as wire:
            self._until(look)
        return bool(missing)

    def until_it_answers(self) -> None:
        """Wait until it has the model and answers with it."""
        with self._wire(_LOOK_SECONDS) as wire:
            self._until(lambda: lacks(wire, self._model))
        self._say("its first answer")
        self._until(self._answer)

    def _answer(self) -> str:
        try:
            # The first one may take as long as loading does.
            with self._wire(self.left_seconds()) as wire:
                return answers(wire, self._model)
        except ModelUnreachable as error:
            return str(error)

    def _until(self, missing: Callable[[], str]) -> None:
        while True:
            try:
                found = missing()
            except ModelRefused:
                # An answer that broke off because the server died is told by its death.
                if self.child is not None:
                    self.child.wait(_PAUSE_SECONDS)
                raise
            if self.child is not None:
                # An answer does not count where it is another's who took the port from a child that died of that.
                self.child.wait(_PAUSE_SECONDS if found else 0)
            elif found:
                time.sleep(_PAUSE_SECONDS)
            if not found:
                return
            if time.monotonic() - self._begun > self._limit_seconds:
                raise self.too_late(found)
            self._say(found)

    def _say(self, missing: str) -> None:
        now = time.monotonic()
        last, when = self._said
        if missing != last or now - when > _SAY_AGAIN_SECONDS:
            self._said = (missing, now)
            note(printable(f"fumehood: waiting for {self._engine} ({now - self._begun:.0f} s): {missing}"))

    def _wire(self, timeout_seconds: float) -> Wire:
        return Wire(self._url, key=self._key, timeout_seconds=min(timeout_seconds, self.left_seconds()))
