"""Environments of packages: the data runtime's work, and the user's own are built, found, kept apart and removed."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import zipfile
from pathlib import Path

import pytest

from fumehood import Engine, ExecutionRequest
from fumehood.errors import InvalidRequest, RuntimeUnavailable, UnknownLanguage
from fumehood.runtimes import build, get, packages
from fumehood.runtimes.runtime import Host, say_nothing


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for runtimes of its own, and a folder of wheels instead of an index."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    for version in ("1.0", "2.0"):
        _wheel(tmp_path, "colours", version)
    return tmp_path


def _wheel(folder: Path, name: str, version: str) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def _requirements(place: Path, *lines: str) -> str:
    file = place / "requirements.txt"
    file.write_text("\n".join([f"--no-index\n--find-links {place}", *lines]) + "\n", encoding="utf-8")
    return str(file)


SILENT = Host(notice=say_nothing)


def _printed(language: str) -> str:
    with Engine() as engine:
        request = ExecutionRequest(code="import colours\nprint(colours.VERSION)", language=language)
        return engine.execute(request).stdout.strip()


def test_a_runtime_of_ones_own_runs_programs_under_its_name(place: Path) -> None:
    path = build.build_own("paint", _requirements(place, "colours<2"), SILENT)
    assert _printed("paint") == "1.0"
    assert Path(path).name in build.installed()
    assert "colours==1.0" in Path(path, "requirements.lock").read_text(encoding="utf-8")


def test_where_packages_come_from_is_not_shown_inside(place: Path) -> None:
    path = Path(build.build_own("paint", _requirements(place, "colours"), SILENT))
    assert str(place) not in (path / "requirements.lock").read_text(encoding="utf-8")


def test_other_requirements_make_another_revision_and_leave_the_first_as_it_was(place: Path) -> None:
    first = Path(build.build_own("paint", _requirements(place, "colours==1.0"), SILENT))
    facts = {str(file): file.lstat().st_mtime_ns for file in first.rglob("*")}
    second = Path(build.build_own("paint", _requirements(place, "colours==2.0"), SILENT))
    assert first != second
    assert _printed("paint") == "2.0"
    assert {str(file): file.lstat().st_mtime_ns for file in first.rglob("*")} == facts


def test_the_same_requirements_are_the_same_revision_and_are_not_built_again(place: Path) -> None:
    heard: list[float] = []
    first = build.build_own("paint", _requirements(place, "colours"), SILENT)
    assert (
        build.build_own(
            "paint", _requirements(place, "colours", "# a comment"), Host(notice=lambda _s, done: heard.append(done))
        )
        == first
    )
    assert 0.0 not in heard


def test_a_build_says_how_far_it_is_from_nothing_to_all(place: Path) -> None:
    heard: list[float] = []
    build.build_own("paint", _requirements(place, "colours"), Host(notice=lambda _s, done: heard.append(done)))
    heard = heard[heard.index(0.0) :]
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    assert len(set(heard)) > 3


def test_requirements_that_cannot_be_met_are_told_in_uvs_words_and_leave_nothing(place: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"uv says:\n(.|\n)*colours==9"):
        build.build_own("paint", _requirements(place, "colours==9"), SILENT)
    assert build.installed() == []
    assert packages.own("paint") is None


def test_a_package_that_would_run_code_to_be_built_is_refused(place: Path) -> None:
    ran = place / "ran"
    source = place / "evil-1.0"
    source.mkdir()
    (source / "setup.py").write_text(
        f"open({str(ran)!r}, 'w')\nfrom setuptools import setup\nsetup(name='evil', version='1.0')\n"
    )
    with pytest.raises(RuntimeUnavailable, match="uv says"):
        build.build_own("paint", _requirements(place, str(source)), SILENT)
    assert not ran.exists()


def test_a_removed_runtime_is_gone_with_its_name_and_others_stay(place: Path) -> None:
    for name in ("paint", "brush"):
        build.build_own(name, _requirements(place, "colours"), SILENT)
    build.remove("paint")
    with pytest.raises(UnknownLanguage, match="--name NAME"):
        get("paint")
    assert _printed("brush") == "2.0"
    assert [each for each in os.listdir(packages.folder()) if each.startswith(".removed")] == []


def test_a_removed_revision_takes_the_name_that_led_to_it(place: Path) -> None:
    path = build.build_own("paint", _requirements(place, "colours"), SILENT)
    assert build.remove(Path(path).name) == [Path(path).name]
    assert packages.own("paint") is None


@pytest.mark.parametrize("name", ["python", "bash", "", "Paint", "../paint", "a/b", "-a", "a" * 41, "a b", "1a", "a\n"])
def test_a_name_that_is_taken_or_cannot_be_is_refused(place: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="runtime name"):
        build.build_own(name, _requirements(place, "colours"), SILENT)


@pytest.mark.parametrize("name", ["../names/paint", "/etc/hostname", ".", "..", "", "zork", "a\0b"])
def test_a_language_that_is_no_name_leads_nowhere(place: Path, name: str) -> None:
    build.build_own("paint", _requirements(place, "colours"), SILENT)
    with pytest.raises(UnknownLanguage):
        get(name)


def test_a_runtime_of_another_python_is_not_used(place: Path) -> None:
    path = Path(build.build_own("paint", _requirements(place, "colours"), SILENT))
    other = path.name.replace(f"-{sys.version_info[0]}.", "-9.")
    (path.parent / packages.NAMES / "paint").write_text(other, encoding="utf-8")
    path.rename(path.parent / other)
    with pytest.raises(RuntimeUnavailable, match="not built for this Python"):
        _printed("paint")


def test_the_command_builds_lists_and_removes(place: Path) -> None:
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "fumehood", *words], capture_output=True, text=True, check=False)

    built = command("runtime", "build", "--requirements", _requirements(place, "colours"), "--name", "paint")
    assert built.returncode == 0, built.stderr
    rows = json.loads(command("runtime", "list", "--json").stdout)
    assert [(row["runtime"], row["current"], row["path"]) for row in rows] == [("paint", True, built.stdout.strip())]
    # The packages of the built-in one are not here.
    assert command("run", "--language", "paint", "-c", "import colours; print(colours.VERSION)").stdout == "2.0\n"
    assert command("runtime", "remove", "paint").returncode == 0
    assert json.loads(command("runtime", "list", "--json").stdout) == []
    again = command("runtime", "remove", "paint")
    assert again.returncode == 64
    assert "'paint'" in again.stderr
    assert command("runtime", "build", "--name", "paint").returncode == 2
    assert command("runtime", "build", "zork").returncode == 2
    assert command("runtime", "remove").returncode == 2


def test_a_build_draws_a_bar_on_a_terminal_and_a_sentence_elsewhere(place: Path) -> None:
    words = ["runtime", "build", "--requirements", _requirements(place, "colours"), "--name", "paint"]
    plain = subprocess.run([sys.executable, "-m", "fumehood", *words], capture_output=True, text=True, check=True)
    assert plain.stderr.count("Installing the packages of the paint runtime") == 1
    assert "\x1b" not in plain.stderr
    build.remove("paint")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen(
        [sys.executable, "-m", "fumehood", *words], stdout=subprocess.DEVNULL, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        drawn = b""
        try:
            while piece := os.read(ours, 4096):
                drawn += piece
        except OSError:
            pass  # what a terminal says when its last writer has gone
        os.close(ours)
    assert process.returncode == 0
    assert "━".encode() in drawn
    assert drawn.endswith((b"\x1b[2K", b"\x1b[?25h")) or b"\x1b[2K" in drawn[-40:]


DATA = {
    "numpy": "import numpy as np\nassert np.arange(5).sum() == 10",
    "pandas": "import pandas as pd\nassert pd.DataFrame({'k': list('aab'), 'v': [1, 2, 3]}).groupby('k').v.sum()['a'] == 3",
    "scipy": "from scipy import optimize\nassert abs(optimize.brentq(lambda x: x - 2, 0, 5) - 2) < 1e-9",
    "sympy": "import sympy\nassert str(sympy.diff('x**2')) == '2*x'",
    "scikit-learn": "from sklearn.linear_model import LinearRegression\nassert LinearRegression().fit([[0], [1]], [0, 2]).coef_[0] > 1.9",
    "pillow": "from PIL import Image\nImage.new('RGB', (4, 3)).save('a.png')\nassert Image.open('a.png').size == (4, 3)",
    "openpyxl": "import openpyxl\nbook = openpyxl.Workbook()\nbook.active['A1'] = 5\nbook.save('a.xlsx')",
    "IPython": "from IPython.core.interactiveshell import InteractiveShell\nassert InteractiveShell",
    "matplotlib": "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.savefig('a.png')\nassert open('a.png', 'rb').read(4)[1:] == b'PNG'",
}


@pytest.mark.parametrize("code", DATA.values(), ids=DATA.keys())
def test_the_data_runtime_has_its_packages_at_work(code: str) -> None:
    with Engine() as engine:
        result = engine.execute(ExecutionRequest(code=code, language="python-data"))
    assert (result.exit_code, result.stderr) == (0, "")
