"""Inputs of saved tools held against their JSON Schemas, which their makers wrote, and which may be made to do harm.

Promised: nothing that a schema refers to is fetched; a check ends within two seconds, whatever patterns and references it has, and
lets others run meanwhile.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import attrs
import jsonschema
import regex
from jsonschema.exceptions import best_match
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Keyword = Callable[[Any, Any, Any, Any], Iterator[jsonschema.ValidationError] | None]

SECONDS = 2.0
_MESSAGE_CHARACTERS = 300
# What jsonschema, regex and referencing raise of schemas, and of values, that nobody wrote in good faith.
_ITS_OWN = (
    jsonschema.SchemaError, Unresolvable, regex.error, RecursionError, TypeError, ValueError, AttributeError, ArithmeticError,
    LookupError,
)  # fmt: skip


def check(schema: dict[str, Any], value: Any) -> None:
    """Raise `InvalidRequest` where a value is none that the schema takes, naming the place, or where it is no schema."""
    try:
        kind = _checked(schema)
        # An empty registry: a reference to elsewhere leads nowhere.
        wrong = best_match(_Bounded(kind).validator(schema, registry=Registry()).iter_errors(value))
    except _ITS_OWN as error:
        raise InvalidRequest(f"input_schema is no JSON Schema: {str(error)[:_MESSAGE_CHARACTERS]}") from error
    except TimeoutError as error:
        raise InvalidRequest(
            f"input_schema takes longer than {SECONDS:g} seconds to hold this input against"
        ) from error
    if wrong is not None:
        place = wrong.json_path.removeprefix("$").lstrip(".")
        raise InvalidRequest(f"input{f' at {place}' if place else ''}: {wrong.message[:_MESSAGE_CHARACTERS]}")


def is_schema(schema: dict[str, Any]) -> bool:
    """Whether it is a JSON Schema, as far as can be told in two seconds."""
    try:
        _checked(schema)
    except (*_ITS_OWN, TimeoutError):
        return False
    return True


def _checked(schema: dict[str, Any]) -> Any:
    """Return the kind of validator that a schema is for, once it was held against that kind's own schema."""
    kind: Any = validator_for(schema, default=jsonschema.Draft202012Validator)
    wrong = best_match(_Bounded(kind).validator(kind.META_SCHEMA).iter_errors(schema))
    if wrong is not None:
        raise jsonschema.SchemaError(wrong.message)
    return kind


class _Bounded:
    """One check: a kind of validator whose patterns and references have a time to end at."""

    def __init__(self, kind: Any) -> None:
        self._until = time.monotonic() + SECONDS
        given = kind.VALIDATORS
        # Python's own patterns can be made to take for ever, and let nothing else run.
        own: dict[str, Keyword] = {
            "pattern": self._pattern,
            "patternProperties": self._named,
            "uniqueItems": self._unique,
        }
        own |= {"additionalProperties": self._additional, "unevaluatedProperties": self._unevaluated(given)}
        keywords = {name: self._watched(keyword) for name, keyword in {**given, **own}.items()}
        self.validator: Any = extend(kind, keywords)  # type: ignore[no-untyped-call]
        # jsonschema's own goes over to a kind without our bounds where a part of the schema names one by `$schema`.
        self.validator.evolve = attrs.evolve

    def _watched(self, keyword: Keyword) -> Keyword:
        def watched(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
            self._look()
            for error in keyword(validator, wanted, value, schema) or ():
                self._look()
                yield error

        return watched

    def _look(self) -> None:
        if time.monotonic() > self._until:
            raise TimeoutError

    def _unique(self, validator: Any, wanted: Any, value: Any, _schema: Any) -> Iterator[jsonschema.ValidationError]:
        # jsonschema's own holds each against each.
        if wanted and validator.is_type(value, "array"):
            seen = set()
            for each in value:
                self._look()
                seen.add(_hashable(each))
            if len(seen) < len(value):
                yield jsonschema.ValidationError("it has non-unique elements")

    def _matches(self, pattern: str, text: str) -> bool:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return regex.search(pattern, text, timeout=left, concurrent=True) is not None

    def _pattern(self, validator: Any, wanted: str, value: Any, _schema: Any) -> Iterator[jsonschema.ValidationError]:
        if validator.is_type(value, "string") and not self._matches(wanted, value):
            yield jsonschema.ValidationError(f"{value[:80]!r} does not match {wanted!r}")

    def _named(self, validator: Any, wanted: Any, value: Any, _schema: Any) -> Iterator[jsonschema.ValidationError]:
        if validator.is_type(value, "object"):
            for pattern, schema in wanted.items():
                for name, each in value.items():
                    if self._matches(pattern, name):
                        yield from validator.descend(each, schema, path=name, schema_path=pattern)

    def _additional(self, validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
        if not validator.is_type(value, "object"):
            return
        known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for name, each in value.items():
            if name in known or any(self._matches(pattern, name) for pattern in patterns):
                continue
            if wanted is False:
                yield jsonschema.ValidationError(f"{name[:80]!r} is not among its properties")
            else:
                yield from validator.descend(each, wanted, path=name)

    def _unevaluated(self, given: dict[str, Keyword]) -> Keyword:
        def unevaluated(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
            if "patternProperties" in str(schema):
                raise jsonschema.SchemaError("unevaluatedProperties and patternProperties cannot be had together here")
            yield from given["unevaluatedProperties"](validator, wanted, value, schema) or ()

        return unevaluated


def _hashable(value: Any) -> Any:
    """Return what is equal for equal JSON values: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, dict):
        return frozenset((name, _hashable(each)) for name, each in value.items())
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    return (bool, value) if isinstance(value, bool) else value
