"""Runtimes that strangers have built: what their manifests may say, what they hear, how a build is ended and removed."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumehood import Engine, ExecutionRequest
from fumehood.errors import InvalidRequest, RuntimeUnavailable, UnknownLanguage
from fumehood.runtimes import build, get, manifests, packages
from fumehood.runtimes.revisions import build_revision, check_manifest, remove_revision
from fumehood.runtimes.runtime import Host, say_nothing
from fumehood.runtimes.workshop import Lines
from tests.testing.indexes import Answer, make_wheel, npm_registry, python_index, serving

HOST = Host(notice=say_nothing)
NPM = pytest.mark.skipif(shutil.which("npm") is None or shutil.which("node") is None, reason="no node and npm here")
FIRST, SECOND = "rt-01jd3k7q9x2m4n6p8r0t2v4w6y", "rt-01jd3k7q9x2m4n6p8r0t2v4w6z"
SEEN = {"requirements.txt": "colours\n", "package.json": '{"dependencies": {"colours": "^1.0.0"}}'}
KINDS = [pytest.param("requirements.txt", id="uv"), pytest.param("package.json", id="npm", marks=NPM)]
PROGRAMS = {
    "requirements.txt": "import colours\nprint(colours.VERSION)",
    "package.json": "console.log(require('colours').VERSION)",
}


class Indexes:
    """The operator's two indexes; `pause` makes them wait before each answer."""

    def __init__(self, folder: Path, notice: str = "") -> None:
        wheel = make_wheel(folder, "colours", {"colours.py": b"VERSION = '1.0'\n"})
        package = (
            {"main": "m.js", "deprecated": notice} if notice else {"main": "m.js"},
            {"m.js": "exports.VERSION = '1.0'"},
        )
        self._answers: tuple[Answer, ...] = (python_index(wheel), npm_registry({"colours": {"1.0.0": package}}))
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def answer(self, path: str) -> tuple[str, bytes] | None:
        self.asked.set()
        self.go_on.wait(60)
        return next(filter(None, (each(path) for each in self._answers)), None)


@pytest.fixture
def indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Indexes]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in [each for each in os.environ if each.startswith("UV_") or each.lower().startswith("npm_config_")]:
        monkeypatch.delenv(name)
    # A text that a terminal would obey, and that is long.
    there = Indexes(tmp_path, "Old.\x1b[2J" + "x" * 9000)
    with serving(there.answer) as (url, _asked):
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{url}/simple")
        monkeypatch.setenv("npm_config_registry", url)
        try:
            yield there
        finally:
            there.go_on.set()


@pytest.mark.parametrize(
    "line",
    [
        "colours", "Colours==1.0", "zope.interface", "discord.py>=2", "a[b,c]>=1, <2", "a [b] ~= 1.0", "a (>=1,<2)", "a==1.*",
        "a===1.0+local", "a != 1!2.0", "a; python_version < '3.12' and (sys_platform == \"linux\" or extra == 'x')",
        "a>=1 ; os_name == 'posix'", "  a  ", "a # why", "# only words: https://x", "", "\ta\t", "a\r",
    ],
)  # fmt: skip
def test_plain_requirements_are_taken(line: str) -> None:
    check_manifest("requirements.txt", f"first\n{line}\n")


@pytest.mark.parametrize(
    "line",
    [
        "-r /etc/passwd", "--requirement=x", "-c x", "-i https://evil.example", "--index-url https://evil.example",
        "--extra-index-url=http://169.254.169.254/", "--find-links /srv", "-f /srv", "--no-index", "-e .", "--editable=.",
        "--pre", "--no-binary :all:", "a --hash=sha256:00", "a --index-url x", "a @ https://evil.example/a.whl", "a@file:///etc/a.whl",
        "https://evil.example/a.whl", "http://10.0.0.1/", "file:///etc/passwd", "git+https://evil.example/a", "./a", "../a", "/etc/a",
        "~/a", "a/b", "a.whl", "a-1.0-py3-none-any.whl", "A.WHL", "a.tar.gz", "a.zip", "a.tar.bz2", ".", "..", "${HOME}", "$HOME", "a==${TOKEN}",
        "a\\", "a \\", "a; x @ y", "a; x == 'https://y'", "a\u2028-r /etc/passwd", "a\x0c-r /etc/passwd", "a\x85-r x", "a\r-r x", "a\x00",
        "a b", "a==", "a==1 2", "[x]", ">=1", "ä", "a==1#x", "a>=1,", "C:\\a", "a\ufeff",
    ],
)  # fmt: skip
def test_what_is_no_plain_requirement_is_refused_by_its_line(line: str) -> None:
    with pytest.raises(InvalidRequest, match=r"requirements\.txt line 2, "):
        check_manifest("requirements.txt", f"first\n{line}\nlast\n")


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("lodash", "^4.17.0"), ("@types/node", "~20.1"), ("a.b_c-d", "*"), ("JSONStream", ">=1.2.3 <2.0.0 || 3.x"), ("a", ""),
        ("a", "latest"), ("a", "next-11"), ("a", "1.0.0-beta.1+build"), ("a", "1.2 - 2.3"), ("a", "v1.0.0"), ("socket.io", "= 4"),
    ],
)  # fmt: skip
def test_ranges_and_tags_of_packages_are_taken(name: str, version: str) -> None:
    # Whatever else stands in there is not looked at.
    more = {"devDependencies": {"a": "file:/etc"}, "scripts": {"install": "x"}, "workspaces": ["../.."]}
    check_manifest("package.json", json.dumps({"dependencies": {name: version}, **more}))


@pytest.mark.parametrize(
    ("name", "version"),
    [
        *(("a", version) for version in (
            "https://evil.example/a.tgz", "http://169.254.169.254/", "git+ssh://git@evil.example/a", "git://x", "github:a/b", "a/b",
            "file:../a", "file:/etc", "link:/etc", "/etc", "./a", "../a", "~/a", ".", "..", "npm:b@1", "workspace:*", "workspace:^", "a.tgz",
            "A.TGZ", "a.tar.gz", "a.tar", "1.0.0.tgz", "catalog:", "portal:/x", "1\n2", "1#x", "b@1", "${HOME}", "\\\\x", "c:x", "ä", "1\x00",
            1, None, ["1"], {"version": "1"},
        )),
        *((name, "1") for name in (
            "", ".", "..", "../a", "/etc", "a/b", "@a", "@/b", "@a/b/c", "_a", ".a", "-g", "a b", "https://x", "a@1", "ä", "a\n", "x" * 215,
        )),
    ],
)  # fmt: skip
def test_what_is_no_range_of_a_package_is_refused_by_its_field(name: str, version: object) -> None:
    with pytest.raises(InvalidRequest, match=r"package\.json: dependencies, ") as caught:
        check_manifest("package.json", json.dumps({"dependencies": {"first": "1", name: version}}))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("kind", "contents", "says"),
    [
        ("Pipfile", "", "'Pipfile' is unknown: take requirements.txt or package.json"),
        ("requirements.txt", "a\n" * 501, "501 packages: 500"),
        ("requirements.txt", "#" * 65537, "65537 bytes: 65536"),
        ("requirements.txt", "ä" * 40000, "80000 bytes"),
        ("package.json", json.dumps({"dependencies": {f"a{n}": "1" for n in range(501)}}), "501 packages"),
        ("package.json", " " * 65537, "65537 bytes"),
        ("package.json", "{", "no JSON"),
        ("package.json", "[" * 60000, "no JSON"),
        ("package.json", "[]", "`dependencies` must be an object"),
        ("package.json", "{}", "`dependencies` must be an object"),
        ("package.json", '{"dependencies": ["a"]}', "`dependencies` must be an object"),
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_is_refused(kind: str, contents: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check_manifest(kind, contents)


@given(st.text(alphabet=st.sampled_from("ab1 \t\r\n.-_[](),;<>=!~*+'\"#@/:\\$%{}\u2028"), max_size=40))
def test_no_text_brings_a_url_a_path_or_an_option_through(text: str) -> None:
    try:
        lines = manifests.read_requirements(text)
    except InvalidRequest:
        return
    for line in lines:
        assert not set(line) & set("/:\\@$%{}#\r\n\u2028")
        assert line[0].isalnum()


@pytest.mark.parametrize("text", ["a[" + "b" * 60000, "a" * 60000 + "\x00", "a;" + "x" * 60000 + "\x00", "a>=" + "1," * 30000, "a" + " " * 60000 + "\x00"])  # fmt: skip
def test_no_manifest_takes_long_to_be_refused(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(InvalidRequest):
        check_manifest("requirements.txt", text)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_revision_is_a_language_and_its_build_is_told_line_by_line(
    indexes: Indexes, kind: str, tmp_path: Path
) -> None:
    heard: list[str] = []
    folder = build_revision(FIRST, kind, SEEN[kind], HOST, heard.append)
    with Engine() as engine:
        result = engine.execute(ExecutionRequest(code=PROGRAMS[kind], language=FIRST))
    assert (result.stdout, result.stderr) == ("1.0\n", "")
    assert Path(folder).parent == Path(packages.folder())
    assert heard
    assert all(line.isprintable() and 0 < len(line) <= 2000 for line in heard)
    assert str(tmp_path) not in "\n".join(heard)
    if kind == "package.json":
        assert any("deprecated" in line for line in heard)


def test_what_is_told_comes_in_bounded_lines_without_what_a_terminal_obeys() -> None:
    heard: list[str] = []
    lines = Lines(heard.append)
    for piece in (
        b"on",
        b"e\ntw\xc3",
        b"\xa4o\r\n\n",
        b"\x1b[2J\x07red\xff",
        "\u202e".encode(),
        b"\n",
        b"x" * 50_000,
        b"end",
    ):
        lines.take(piece)
    lines.end()
    assert heard[:3] == ["one", "twäo", "�[2J�red��"]
    assert all(len(line) <= 2000 for line in heard)
    assert heard[-1] == "end"


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_met_is_told_in_the_builders_words_and_leaves_nothing(
    indexes: Indexes, kind: str, tmp_path: Path
) -> None:
    wanted = {"requirements.txt": "colours==9", "package.json": '{"dependencies": {"colours": "^9.0.0"}}'}
    with pytest.raises(RuntimeUnavailable, match=r"says:\n(.|\n)*colours") as caught:
        build_revision(FIRST, kind, wanted[kind], HOST, lambda _line: None)
    assert str(tmp_path) not in str(caught.value)
    assert "--" not in str(caught.value)
    assert build.installed() == []
    with pytest.raises(UnknownLanguage):
        get(FIRST)


def test_a_place_of_this_host_that_the_builder_names_is_not_told(
    indexes: Indexes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("no index", encoding="utf-8")
    monkeypatch.setenv("UV_DEFAULT_INDEX", broken.as_uri())
    heard: list[str] = []
    with pytest.raises(RuntimeUnavailable, match=r"failed to read from file .*/broken/") as caught:
        build_revision(FIRST, "requirements.txt", "colours", HOST, heard.append)
    assert str(tmp_path) not in f"{caught.value}{heard}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_manifest_is_checked_before_anything_is_built(indexes: Indexes, kind: str) -> None:
    evil = {"requirements.txt": "-r /etc/passwd", "package.json": '{"dependencies": {"a": "file:/etc"}}'}
    with pytest.raises(InvalidRequest):
        build_revision(FIRST, kind, evil[kind], HOST, lambda _line: None)
    with pytest.raises(InvalidRequest, match="runtime name"):
        build_revision("../x", kind, SEEN[kind], HOST, lambda _line: None)
    assert not indexes.asked.is_set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_cancelled_build_ends_at_once_and_leaves_nothing(indexes: Indexes, kind: str) -> None:
    indexes.go_on.clear()
    cancel = os.eventfd(0, os.EFD_CLOEXEC)

    def cancel_when_asked() -> None:
        indexes.asked.wait(60)
        os.eventfd_write(cancel, 1)

    canceller = threading.Thread(target=cancel_when_asked)
    canceller.start()
    began = time.monotonic()
    with pytest.raises(RuntimeUnavailable, match="it was cancelled"):
        build_revision(FIRST, kind, SEEN[kind], HOST, lambda _line: None, cancel=cancel)
    assert time.monotonic() - began < 20
    canceller.join()
    os.close(cancel)
    assert build.installed() == []
    assert packages.own(FIRST) is None


def test_one_build_keeps_another_of_its_name_waiting_until_that_is_cancelled_and_no_other(indexes: Indexes) -> None:
    reading, writing = os.pipe()
    made: list[str] = []
    lock = build._locked(Path(packages.folder()), FIRST)
    Path(packages.folder()).mkdir(parents=True)
    with lock:
        made.append(build_revision(SECOND, "requirements.txt", "colours", HOST, lambda _line: None))
        canceller = threading.Timer(1.5, lambda: os.close(writing))
        canceller.start()
        with pytest.raises(RuntimeUnavailable, match="it was cancelled"):
            build_revision(FIRST, "requirements.txt", "colours", HOST, lambda _line: None, cancel=reading)
        canceller.join()
    os.close(reading)
    made.append(build_revision(FIRST, "requirements.txt", "colours", HOST, lambda _line: None))
    assert sorted(build.installed()) == sorted(Path(each).name for each in made)


def test_a_runtimes_lock_is_free_when_it_is_given_back_though_another_process_has_its_file_open(
    indexes: Indexes,
) -> None:
    folder = Path(packages.folder())
    folder.mkdir(parents=True)
    reading, writing = os.pipe()
    with build._locked(folder, FIRST):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    over = os.eventfd(1, os.EFD_CLOEXEC)
    try:
        # Cancelled already: it would say so if it had to wait.
        with build._locked(folder, FIRST, over):
            pass
    finally:
        os.close(over)
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_to_remove_one_leaves_another_of_the_same_lock(indexes: Indexes, kind: str) -> None:
    for name in (FIRST, SECOND):
        build_revision(name, kind, SEEN[kind], HOST, lambda _line: None)
    remove_revision(FIRST)
    remove_revision(FIRST)
    with pytest.raises(UnknownLanguage):
        get(FIRST)
    with Engine() as engine:
        result = engine.execute(ExecutionRequest(code=PROGRAMS[kind], language=SECOND))
    assert result.stdout == "1.0\n"


def test_to_remove_what_never_was_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    remove_revision(FIRST)
    with pytest.raises(InvalidRequest):
        remove_revision("../x")
