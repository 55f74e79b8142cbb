"""Schemas of saved tools: the same verdicts as jsonschema's own, nothing fetched, and an end in time whatever they say."""

from __future__ import annotations

import threading
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumehood.errors import InvalidRequest
from fumehood.server.schemas import check
from tests.testing.indexes import serving

NAMES = st.sampled_from(["a", "b", "ab", "x1"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "ab", "x1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6,
)  # fmt: skip
LEAVES = st.one_of(
    st.sampled_from(["string", "integer", "object", "array", "null", "boolean"]).map(lambda kind: {"type": kind}),
    st.sampled_from(["^a", "b$", "[0-9]", "."]).map(lambda pattern: {"pattern": pattern}),
    st.lists(NAMES, max_size=2, unique=True).map(lambda names: {"required": names}),
    st.integers(-2, 2).map(lambda number: {"minimum": number}), st.booleans(), VALUES.map(lambda value: {"const": value}),
)  # fmt: skip
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.fixed_dictionaries({}, optional={
        "properties": st.dictionaries(NAMES, inner, max_size=2), "patternProperties": st.dictionaries(st.sampled_from(["^a", "1$"]), inner, max_size=2),
        "additionalProperties": inner, "items": inner, "allOf": st.lists(inner, min_size=1, max_size=2),
        "anyOf": st.lists(inner, min_size=1, max_size=2), "not": inner, "if": inner, "then": inner, "else": inner,
    }), max_leaves=6,
)  # fmt: skip


@given(SCHEMAS.filter(lambda schema: isinstance(schema, dict)), VALUES)
def test_the_verdict_is_jsonschemas_own(schema: Any, value: Any) -> None:
    try:
        check(schema, value)
    except InvalidRequest:
        takes = False
    else:
        takes = True
    assert takes == jsonschema.Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    ("schema", "value", "says"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}}, {"a": 1}, "input at a: 1 is not of type 'string'"),
        ({"additionalProperties": False}, {"x": 1}, "'x' is not among its properties"),
        ({"pattern": "^a"}, "b", "does not match"),
        ({"type": "nonsense"}, 1, "is no JSON Schema"),
        ({"pattern": "("}, "b", "is no JSON Schema"),
        ({"$ref": "#/nowhere"}, 1, "is no JSON Schema"),
        ({"$ref": "#"}, 1, "is no JSON Schema"),
        ({"patternProperties": {"a": True}, "unevaluatedProperties": False}, {"b": 1}, "cannot be had together"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(schema: Any, value: Any, says: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check(schema, value)
    assert says in str(raised.value)


@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef"])
def test_nothing_that_a_schema_refers_to_is_fetched(keyword: str) -> None:
    with serving(lambda _path: ("application/json", b"{}")) as (url, asked):
        with pytest.raises(InvalidRequest):
            check({keyword: f"{url}/meta"}, 1)
        with pytest.raises(InvalidRequest):
            check({"$id": f"{url}/here", "properties": {"a": {keyword: "there"}}}, {"a": 1})
        assert asked == []


def laughs(depth: int) -> dict[str, Any]:
    """A schema that is small, and leads on into two to the `depth`."""
    steps = {f"s{n}": {"allOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(depth)}
    return {"$defs": {**steps, f"s{depth}": {"type": "integer"}}, "$ref": "#/$defs/s0"}


@pytest.mark.parametrize(
    ("schema", "value"),
    [({"pattern": "^(a|a)*$"}, "a" * 60 + "!"), ({"patternProperties": {"^(a|a)*$": False}}, {"a" * 60 + "!": 1}),
     ({"patternProperties": {"^(a|a)*$": True}, "additionalProperties": {"type": "null"}}, {"a" * 60 + "!": None}),
     ({"propertyNames": {"pattern": "^(a|a)*$"}}, {"a" * 60 + "!": 1}), (laughs(60), 1)],
    ids=["pattern", "names", "additional", "property names", "laughs"],
)  # fmt: skip
def test_a_check_ends_in_time_and_others_run_meanwhile(schema: Any, value: Any) -> None:
    steps, over = 0, threading.Event()

    def count() -> None:
        nonlocal steps
        while not over.wait(0.01):
            steps += 1

    beside = threading.Thread(target=count)
    beside.start()
    began = time.monotonic()
    try:
        with pytest.raises(InvalidRequest, match="longer than 2 seconds"):
            check(schema, value)
    finally:
        over.set()
        beside.join()
    assert time.monotonic() - began < 8
    assert steps > 20
