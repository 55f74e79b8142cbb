"""Frozen, keyword-only records: the part of dataclasses that we use, without its import time.

`import dataclasses` costs 11 ms where a whole bare `python3 -I -c 'print(1)'` takes 8.5 (it loads `inspect`),
and a cold `fumehood run` has 25 in all: docs/decisions/0004-start-up-time.md has the measurements.
Type checkers see dataclasses; at run time this module is all there is.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self, TypeVar, dataclass_transform

    T = TypeVar("T")
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
        if not self._needed <= given:
            missing = self._needed - given
            raise TypeError(f"{type(self).__name__} needs {next(n for n in self._fields if n in missing)}=")
        if not given <= self._known:
            names = ", ".join(sorted(given - self._known))
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

    def __getstate__(self) -> dict[str, Any]:
        return self.as_dict()


def may_come_later(default: T) -> T:
    """Return a field's default where the field may be given as `later` makes it."""
    return _MayComeLater(default)  # type: ignore[return-value]  # a descriptor, which gives such a value


def later(function: Callable[[], T]) -> T:
    """Return what stands for a value that is asked for when somebody reads it first: the function is then called, once or more."""
    return _Later(function)  # type: ignore[return-value]  # what stands for it


class _Later:
    __slots__ = ("function",)

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function


class _MayComeLater:
    def __init__(self, default: object) -> None:
        self._default = default
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, record: Record | None, owner: type) -> object:
        if record is None:
            return self._default
        value = record.__dict__.get(self._name, self._default)
        if type(value) is _Later:
            value = record.__dict__[self._name] = value.function()
        return value

    def __set__(self, record: Record, value: object) -> None:
        Record.__setattr__(record, self._name, value)  # which refuses
