"""What a request may hold, and what is said of what it may not."""

from __future__ import annotations

import json
import os
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumehood import ExecutionRequest, ExecutionResult, Limits, OutputFile
from fumehood.errors import InvalidFilePath, InvalidRequest
from fumehood.protocol.paths import why_not_inside
from fumehood.protocol.record import later

PATHS = {
    "parent": "../x",
    "parent_inside": "a/../../x",
    "absolute": "/abs",
    "nul": "a\0b",
    "backslash": "..\\x",
    "dot": ".",
    "dot_inside": "a/./b",
    "empty": "",
    "empty_part": "a//b",
    "trailing_slash": "a/",
    "300_characters": "x" * 300,
    "300_bytes": "é" * 150,
    "newline": "a\nb",
    "escape": "\x1b[31m",
    "surrogate": "\udcff",
    "deep": "/".join("d" * 40),
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(InvalidFilePath, match="file path"):
        ExecutionRequest(code="", files={path: "x"})


def test_names_that_differ_in_case_alone_are_refused() -> None:
    with pytest.raises(InvalidFilePath, match="case"):
        ExecutionRequest(code="", files={"a": "", "A": ""})


def test_a_file_cannot_be_a_folder_too() -> None:
    with pytest.raises(InvalidFilePath, match="folder"):
        ExecutionRequest(code="", files={"a": "", "a/b": ""})


@given(st.text())
def test_a_path_that_is_taken_stays_inside(path: str) -> None:
    if why_not_inside(path) is None:
        assert not path.startswith("/")
        assert ".." not in path.split("/")
        assert "\0" not in path


REQUESTS: dict[str, dict[str, Any]] = {
    "code_missing_type": {"code": b"x"},
    "language_type": {"code": "", "language": 5},
    "args_text": {"code": "", "args": "one"},
    "args_number": {"code": "", "args": [1]},
    "args_nul": {"code": "", "args": ["a\0"]},
    "env_list": {"code": "", "env": ["A=1"]},
    "env_name": {"code": "", "env": {"A=B": "1"}},
    "env_value": {"code": "", "env": {"A": 1}},
    "env_nul": {"code": "", "env": {"A": "\0"}},
    "files_list": {"code": "", "files": ["x"]},
    "files_number": {"code": "", "files": {"x": 1}},
    "stdin_type": {"code": "", "stdin": 5},
    "limits_dict": {"code": "", "limits": {"pids": 1}},
    "name_with_slash": {"code": "", "name": "a/b"},
    "name_parent": {"code": "", "name": ".."},
}


@pytest.mark.parametrize("fields", REQUESTS.values(), ids=REQUESTS.keys())
def test_a_value_that_cannot_be_run_is_named(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        ExecutionRequest(**fields)


@pytest.mark.parametrize("value", [0, -1, True, None, "5", float("nan"), float("inf"), 1 << 80])
@pytest.mark.parametrize("name", ["wall_seconds", "memory_bytes", "pids", "disk_bytes", "disk_files", "output_bytes"])
def test_a_limit_out_of_range_is_named_with_its_range(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"limit {name} .*from"):
        Limits(**{name: value})


def test_an_unknown_field_is_an_error_and_names_those_there_are() -> None:
    with pytest.raises(TypeError, match="no field memory.*memory_bytes"):
        Limits(memory=5)  # type: ignore[call-arg]  # the point
    with pytest.raises(TypeError, match="needs code"):
        ExecutionRequest()  # type: ignore[call-arg]  # the point


def test_records_are_frozen_equal_by_value_and_copied_with_changes() -> None:
    limits = Limits(pids=5)
    with pytest.raises(AttributeError, match="frozen"):
        limits.pids = 6  # type: ignore[misc]  # the point
    assert limits == Limits(pids=5) != limits.replace(pids=6)
    assert hash(limits) == hash(Limits(pids=5))
    assert "pids=5" in repr(limits)


def test_binary_files_travel_as_base64_in_json() -> None:
    files = (OutputFile(path="a", data=b"\xff"), OutputFile(path="b", data=b"text"))
    result = ExecutionResult(id="1", language="python", reason="exited", exit_code=0, files=files)
    assert result.as_json()["files"] == [{"path": "a", "base64": "/w=="}, {"path": "b", "text": "text"}]


def test_names_that_are_not_text_stay_apart_and_can_be_encoded() -> None:
    names = [b"\xff", b"\\udcff", b"\\\\udcff", b"a\\b", b"caf\xc3\xa9", b"plain"]
    files = tuple(OutputFile(path=os.fsdecode(name), data=b"") for name in names)
    result = ExecutionResult(id="1", language="python", reason="exited", exit_code=0, files=files)
    paths = [each["path"] for each in result.as_json()["files"]]
    assert len(set(paths)) == len(names)
    assert paths[-2:] == ["café", "plain"]
    json.dumps(result.as_json(), ensure_ascii=False).encode("utf-8")


def test_a_value_that_comes_later_is_asked_for_when_it_is_read() -> None:
    asked: list[int] = []

    def count() -> int:
        asked.append(1)
        return 7

    result = ExecutionResult(id="1", language="python", reason="exited", exit_code=0, network_refused=later(count))
    assert not asked
    assert (result.network_refused, result.network_refused, len(asked)) == (7, 7, 1)
    other = ExecutionResult(id="1", language="python", reason="exited", exit_code=0, network_refused=later(count))
    assert pickle.loads(pickle.dumps(other)) == other == result  # noqa: S301 - made here
    assert "network_refused=7" in repr(other)
    with pytest.raises(AttributeError, match="frozen: use replace"):
        result.network_refused = 8  # type: ignore[misc]  # it is frozen
    assert ExecutionResult(id="1", language="python", reason="exited", exit_code=0).network_refused == 0
