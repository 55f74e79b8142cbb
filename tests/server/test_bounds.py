"""What is kept of what was said: no more than so much, whatever it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumehood.server.bounds import ALL_CHARACTERS, TEXT_CHARACTERS, bounded, weight

SMALL = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(SMALL)
def test_what_is_small_is_kept_as_it_is(value: Any) -> None:
    assert bounded(value) == value


@pytest.mark.parametrize(
    "value",
    ["x" * (1 << 24), ["x" * TEXT_CHARACTERS] * 100, [0] * (1 << 22), {str(n): n for n in range(1 << 20)}, [[]] * (1 << 21),
     {"x" * (1 << 22): 1}],
    ids=["a text", "many texts", "numbers", "names", "lists", "a name"],
)  # fmt: skip
def test_what_is_much_is_cut_and_says_so(value: Any) -> None:
    kept = json.dumps(bounded(value))
    assert "not kept" in kept
    assert len(kept) < 2 * ALL_CHARACTERS


def test_what_is_deep_is_cut() -> None:
    value: Any = 1
    for _each in range(900):
        value = [value]
    assert "not kept" in json.dumps(bounded(value))


def test_a_texts_beginning_is_what_stays() -> None:
    assert bounded({"a": "x" * TEXT_CHARACTERS})["a"] == "x" * TEXT_CHARACTERS
    assert bounded("x" * TEXT_CHARACTERS + "yz") == "x" * TEXT_CHARACTERS + "… (2 characters were not kept)"


@given(SMALL)
def test_a_weight_is_about_its_json(value: Any) -> None:
    assert weight(value) >= len(json.dumps(value, ensure_ascii=False, separators=(",", ":"))) / 8
