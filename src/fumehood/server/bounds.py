"""How much of what callers and guests say is kept: so much of each text, and so much of all of them."""

from __future__ import annotations

from typing import Any

#: Of each text in what was asked and answered, and of all of it together.
TEXT_CHARACTERS, ALL_CHARACTERS = 256 << 10, 1 << 20
# What a value without text takes, about.
_VALUE_CHARACTERS = 8
_DEPTH = 120
_REST = "… (the rest was not kept)"


def bounded(value: Any) -> Any:
    """Return a JSON value with what is too much of it cut, and said to be."""
    return _Keeper().keep(value, _DEPTH)


def weight(value: Any) -> int:
    """Return about how many characters a JSON value takes."""
    if isinstance(value, str):
        return len(value) + _VALUE_CHARACTERS
    if isinstance(value, dict):
        return sum(len(name) + weight(each) for name, each in value.items()) + _VALUE_CHARACTERS
    return sum(map(weight, value)) + _VALUE_CHARACTERS if isinstance(value, (list, tuple)) else _VALUE_CHARACTERS


class _Keeper:
    def __init__(self) -> None:
        self._left = ALL_CHARACTERS

    def keep(self, value: Any, depth: int) -> Any:
        self._left -= _VALUE_CHARACTERS
        if depth == 0:
            return _REST
        if isinstance(value, str):
            most = max(0, min(TEXT_CHARACTERS, self._left))
            self._left -= len(value)
            return value if len(value) <= most else f"{value[:most]}… ({len(value) - most} characters were not kept)"
        if isinstance(value, dict):
            kept: dict[str, Any] = {}
            for name, each in value.items():
                if self._left <= 0:
                    return kept | {"…": _REST}
                kept[self.keep(name, depth)] = self.keep(each, depth - 1)
            return kept
        if isinstance(value, (list, tuple)):
            listed: list[Any] = []
            for each in value:
                if self._left <= 0:
                    return [*listed, _REST]
                listed.append(self.keep(each, depth - 1))
            return listed
        return value
