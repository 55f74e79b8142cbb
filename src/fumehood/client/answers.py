"""What a server answered as records, each value of the type that it must have. Raises `ServerMisbehaved` where one is not."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest, ServerMisbehaved
from ..protocol import wire
from ..protocol.record import Record
from ..protocol.session import Death, Output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from ..protocol.execution import ExecutionResult
    from ..protocol.session import CellResult, Event

    Made = TypeVar("Made", bound=Record)

#: What a field may hold, by its annotation. Names of closed sets, which are not listed, stand for texts.
_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,), "float": (int, float), "bool": (bool,), "bytes": (bytes,), "Death": (Death,)
}  # fmt: skip
# It becomes a part of URLs.
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")


class Facts(Record):
    """What is told of a session."""

    id: str
    language: str
    status: str
    death: Death | None
    lost: tuple[str, ...]


def result(values: Any) -> ExecutionResult:
    """Return the result of an execution."""
    made = _checked(lambda: wire.result_from_json(values))
    if not 0 <= made.exit_code <= 255:
        raise ServerMisbehaved(f"the server sent exit code {made.exit_code}")
    return made


def event(values: Any) -> Event:
    """Return an event of a cell."""
    made = _checked(lambda: wire.event_from_json(values))
    if isinstance(made, Output) and made.stream not in ("stdout", "stderr"):
        raise ServerMisbehaved(f"the server sent output of a stream {made.stream!r}")
    return made


def cell(values: Any, events: Iterable[Event]) -> CellResult:
    """Return the result of a cell that had these events. Pieces of one stream that follow each other are put together."""
    joined: list[Event] = []
    for stream, pieces in itertools.groupby(events, lambda each: each.stream if isinstance(each, Output) else ""):
        if stream:
            text = "".join(each.text for each in pieces if isinstance(each, Output))
            joined.append(Output(stream=stream, text=text))
        else:
            joined += pieces
    return _checked(lambda: wire.cell_from_json(values, tuple(joined)))


def session(values: Any) -> Facts:
    """Return what is told of a session."""

    def make() -> Facts:
        death = values["death"]
        return Facts(
            id=name(values), language=values["language"], status=values["status"],
            death=None if death is None else Death(reason=death["reason"], detail=death["detail"]),
            lost=tuple(values["lost"]),
        )  # fmt: skip

    return _checked(make)


def name(values: Any) -> str:
    """Return the id of what is told of."""
    found = field(values, "id", str)
    if not _ID.fullmatch(found):
        raise ServerMisbehaved(f"the server sent an id {found[:100]!r}")
    return str(found)


def field(values: Any, key: str, kind: type) -> Any:
    """Return one value of an object."""
    found = values.get(key) if isinstance(values, dict) else None
    if not isinstance(found, kind):
        raise ServerMisbehaved(f"the server sent no {key}, or no {kind.__name__} for it")
    return found


def texts(values: Any, key: str) -> tuple[str, ...]:
    """Return a list of texts of an object."""
    found = field(values, key, list)
    if not all(isinstance(each, str) for each in found):
        raise ServerMisbehaved(f"the server sent {key} with something that is no text")
    return tuple(found)


def _checked(make: Callable[[], Made]) -> Made:
    try:
        made = make()
    except (InvalidRequest, TypeError, KeyError, AttributeError, ValueError) as error:
        raise ServerMisbehaved(f"the server's answer breaks the API: {error}") from error
    _check(made)
    return made


def _check(record: Record) -> None:
    for name in record._fields:
        value = getattr(record, name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, Record):
                _check(each)
            elif isinstance(value, tuple) and not isinstance(each, str):
                raise ServerMisbehaved(f"the server sent {type(each).__name__} in {name} of {type(record).__name__}")
        kinds = _kinds(type(record), name)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ServerMisbehaved(f"the server sent {type(value).__name__} for {name} of {type(record).__name__}")


def _kinds(record: type, name: str) -> tuple[type, ...]:
    annotation: str = next(
        each.__annotations__[name] for each in record.__mro__ if name in vars(each).get("__annotations__", {})
    )
    plain = annotation.removesuffix(" | None")
    if plain.startswith(("tuple[", "dict[")):
        kinds: tuple[type, ...] = (tuple if plain.startswith("tuple[") else dict,)
    else:
        kinds = _KINDS.get(plain, (str,))
    return kinds if plain == annotation else (*kinds, type(None))
