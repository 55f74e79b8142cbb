"""The configuration is a person's own file: one line is written, and the rest stays."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from fumehood.errors import ConfigurationError
from fumehood.llm.configuration import remember

MODEL = "vllm:devstral@http://127.0.0.1:8000/v1"
LINE = f'model = "{MODEL}"'
KEPT: dict[str, tuple[str, str]] = {
    "nothing": ("", f"{LINE}\n"),
    "comments": ("# mine\n\ntimeout_seconds = 5 # long\n", f"# mine\n\ntimeout_seconds = 5 # long\n{LINE}\n"),
    "another_model": ("model='x' # best\n#model = 'y'\n", f"model=\"{MODEL}\" # best\n#model = 'y'\n"),
    "no_line_feed": ("timeout_seconds = 5", f"timeout_seconds = 5\n{LINE}\n"),
    "line_ends_of_windows": ('model = "x"\r\ntimeout_seconds = 5\r\n', f"{LINE}\r\ntimeout_seconds = 5\r\n"),
    "escapes": (r'model = "a\"#b"', LINE),
    "quoted": ("\"model\" = 'x'\n", f'"model" = "{MODEL}"\n'),
    "the_same": (f"  {LINE}\n", f"  {LINE}\n"),
}


@pytest.mark.parametrize(("before", "after"), KEPT.values(), ids=KEPT.keys())
def test_every_other_line_stays_as_it_is(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(before.encode())
    written = remember(path, MODEL)
    assert path.read_bytes().decode() == after
    assert written.before == tomllib.loads(before).get("model")
    assert [each.name for each in tmp_path.iterdir()] == ["config.toml"], "nothing else is left"


UNCERTAIN: dict[str, tuple[str, str]] = {
    "over_several_lines": ('model = """\nx"""\n', "write it yourself"),
    "within_another": ("mistral_server_url = '''\nmodel = 'x'\n'''\nmodel = 'y'\n", "write it yourself"),
    "unknown": ("modell = 'x'\n", "unknown setting 'modell'"),
    "no_toml": ("=\n", "cannot be written"),
}


@pytest.mark.parametrize(("before", "words"), UNCERTAIN.values(), ids=UNCERTAIN.keys())
def test_a_file_that_is_not_understood_stays_as_it_is(tmp_path: Path, before: str, words: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(before)
    with pytest.raises(ConfigurationError, match=words):
        remember(path, MODEL)
    assert path.read_text() == before


def test_a_link_stays_one_and_rights_stay_what_they_are(tmp_path: Path) -> None:
    kept, path = tmp_path / "kept.toml", tmp_path / "config.toml"
    kept.write_text("timeout_seconds = 5\n")
    kept.chmod(0o640)
    path.symlink_to(kept)
    remember(path, MODEL)
    assert path.is_symlink()
    assert kept.read_text() == f"timeout_seconds = 5\n{LINE}\n"
    assert kept.stat().st_mode & 0o777 == 0o640


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="write it yourself, model = "):
        remember(tmp_path / "file" / "config.toml", MODEL)
    assert os.listdir(tmp_path) == ["file"]
