"""What a probe is: what is tried, what must come of it, which wall it is about, and the code that tries it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from .target import Target

#: Root, and not merely called so in a user namespace: what nobody else could do without walls shows nothing to others.
ONLY_ROOT = "without walls this fails for an ordinary user too: only root can show that it is real"


class Fell(Exception):
    """A wall's fault: the probe saw what must not be. The text says what was seen."""


class LeftOut(Exception):
    """Nobody's fault: the probe cannot be tried here. The text says why."""


class Probe(Record):
    """One attack.

    `id` is its number in the list of attacks that docs/threat-model.md explains, `name` is unique. `tried` and `expected`
    are words for people, `wall` names what is to stop it. `attack` raises `Fell`, or `LeftOut`. `once`: how its sandboxes
    start makes no difference, so that it is run one time and not one for each way.
    """

    id: str
    name: str
    tried: str
    expected: str
    wall: str
    attack: Callable[[Target], None]
    only_root: bool = False
    once: bool = False
    #: The ways in which it makes sense, where that is not all of them.
    only_ways: tuple[str, ...] | None = None
    #: The tiers (`Target.tiers`) in which what is tried is not stopped, each with the reason: shown, never counted as held.
    open_in: Mapping[str, str] = {}


class Suite:
    """The probes of one class of attacks, in the order in which they were added."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.probes: list[Probe] = []

    def __iter__(self) -> Iterator[Probe]:
        return iter(self.probes)

    def probe(self, id: str, *, tried: str, expected: str, wall: str, **fields: Any) -> Callable[[_Attack], _Attack]:  # noqa: A002 - what it is
        """Make a probe of the function below."""

        def add(function: _Attack) -> _Attack:
            self._add(id, function.__name__, function, tried=tried, expected=expected, wall=wall, **fields)
            return function

        return add

    def probe_each(
        self, id: str, variants: Mapping[str, Any], *, tried: str, expected: str, wall: str, **fields: Any  # noqa: A002 - what it is
    ) -> Callable[[Callable[..., None]], Callable[..., None]]:  # fmt: skip
        """Make a probe of the function below for each variant: its key stands for {} in `tried`, its value comes after the target.

        A tuple comes as several arguments. A key that begins with a number of its own, as in "P09 mount", has that for its id.
        """

        def add(function: Callable[..., None]) -> Callable[..., None]:
            for key, value in variants.items():
                own, _space, rest = key.partition(" ")
                has_own = own.startswith("P") and own[1:].isdigit() and bool(rest)
                label = rest if has_own else key
                self._add(
                    own if has_own else id, f"{function.__name__}[{label}]",
                    _bound(function, value if isinstance(value, tuple) else (value,)),
                    tried=tried.replace("{}", label), expected=expected, wall=wall, **fields,
                )  # fmt: skip
            return function

        return add

    def _add(self, id: str, name: str, attack: _Attack, **fields: Any) -> None:  # noqa: A002 - as above
        self.probes.append(Probe(id=id, name=f"{self.name}.{name}", attack=attack, **fields))


if TYPE_CHECKING:
    _Attack = Callable[[Target], None]


def _bound(function: Callable[..., None], values: tuple[Any, ...]) -> _Attack:
    return lambda target: function(target, *values)


def same(seen: object, wanted: object) -> None:
    """Fall unless what was seen is what is wanted."""
    if seen != wanted:
        raise Fell(f"saw {_short(seen)}, not {_short(wanted)}")


def one_of(seen: object, wanted: tuple[object, ...] | frozenset[object]) -> None:
    """Fall unless what was seen is one of these."""
    if seen not in wanted:
        raise Fell(f"saw {_short(seen)}, none of {', '.join(map(_short, wanted))}")


def at_most(seen: float, limit: float) -> None:
    """Fall where a number is above the limit."""
    if not seen <= limit:
        raise Fell(f"saw {seen:g}, more than {limit:g}")


def holds(fact: bool, otherwise: str) -> None:
    """Fall, with these words, unless the fact holds."""
    if not fact:
        raise Fell(otherwise)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
