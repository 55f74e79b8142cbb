"""What ends a check other than by passing. Below all else here: whoever reads an answer may find that it is none."""

from __future__ import annotations


class Failed(Exception):
    """The server's fault: what was seen stands in the text."""


class Skipped(Exception):
    """Nobody's fault: the server leaves out what the check needs. The text says what."""


class NeedsRealWeights(Exception):
    """The model's: its answers give nothing by which the server can be judged. The text says what was asked for."""
