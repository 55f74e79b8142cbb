"""Frozen, keyword-only records: the part of dataclasses that we use, without its import time.

`import dataclasses` costs 11 ms where a whole bare `python3 -I -c 'print(1)'` takes 8.5 (it loads `inspect`),
and a cold `fumehood run` has 25 in all: docs/decisions/0004-start-up-time.md has the measurements.
Type checkers see dataclasses; at run time this module is all there is.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_options):  # noqa: ANN201, ANN003 - typing's own is too slow to import here
        """Stand in for typing's decorator, which does nothing at run time either."""
        return lambda cls: cls


@dataclass_transform(kw_only_default=True, frozen_default=True, eq_default=True)
class Record:
    """A value made of named fields: annotate them in the class body, give defaults where there are any.

    A default must be immutable. `__post_init__` may check; it raises errors of ours, which name the field.
    """

    _fields: tuple[str, ...] = ()
    _known: frozenset[str] = frozenset()
    _needed: frozenset[str] = frozenset()

    def __init_subclass__(cls) -> None:
        cls._fields = (*cls._fields, *(name for name in cls.__annotations__ if not name.startswith("_")))
        cls._known = frozenset(cls._fields)
        cls._needed = frozenset(name for name in cls._fields if not hasattr(cls, name))

    def __init__(self, **values: Any) -> None:
        given = values.keys()
        if missing := self._needed - given:
            raise TypeError(f"{type(self).__name__} needs {next(n for n in self._fields if n in missing)}=")
        if unknown := given - self._known:
            names = ", ".join(sorted(unknown))
            raise TypeError(f"{type(self).__name__} has no field {names}; it has {', '.join(self._fields)}")
        self.__dict__.update(values)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Check the values; the fields are all set."""

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked anew."""
        return type(self)(**{**self.as_dict(), **changes})

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, in order, values as they are (records inside stay records)."""
        return {name: getattr(self, name) for name in self._fields}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: use replace({name}=…)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash((type(self), *self.as_dict().values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.as_dict().items())})"
