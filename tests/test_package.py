"""The package as a newcomer meets it: its names, the README's examples, the built wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fumehood

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(<!-- not run: .*? -->\n)?```(\w+)\n(.*?)```", README, re.DOTALL)


def test_every_public_name_is_there() -> None:
    assert {name for name in fumehood.__all__ if getattr(fumehood, name) is not None} == set(fumehood.__all__)
    with pytest.raises(AttributeError, match="no attribute 'zork'"):
        _ = fumehood.zork


def test_importing_loads_nothing_of_others() -> None:
    program = (
        "import sys, fumehood; print(sorted({n.split('.')[0] for n in sys.modules} - set(sys.stdlib_module_names)))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"'(\w+)'", shown)) <= {
        "fumehood",
        "__main__",
        "sitecustomize",
        "apport_python_hook",
        "_distutils_hack",
    }


DOCS = [
    text
    for page in sorted((ROOT / "docs").rglob("*.md"))
    # tests/egress/test_docs.py has the hosts that the one speaks of, tests/test_client_line.py the other's server.
    if page.name not in ("allow-hosts.md", "use-a-server.md")
    for text in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
]


@pytest.mark.parametrize("code", [text for skip, kind, text in BLOCKS if kind == "python" and not skip] + DOCS)
def test_the_programs_of_readme_and_docs_run(code: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def consoles() -> list[tuple[str, str]]:
    """Return (command, what it prints) of every console block."""
    found = []
    for skip, kind, text in BLOCKS:
        if kind == "console" and not skip:
            for part in text.split("$ ")[1:]:
                command, _newline, shown = part.partition("\n")
                found.append((command, shown))
    return found


@pytest.mark.parametrize(("command", "shown"), consoles(), ids=[command[:40] for command, _shown in consoles()])
def test_the_readmes_commands_print_what_it_says(command: str, shown: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    answer = subprocess.run(
        ["bash", "-c", f"exec 2>&1\n{command}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout == shown


def test_the_readme_is_short_and_has_examples() -> None:
    assert README.count("\n") <= 150
    assert len(consoles()) >= 5


def test_the_wheel_holds_what_runs(tmp_path: Path) -> None:
    from uv import find_uv_bin

    environment = {**os.environ, "UV_NATIVE_TLS": "1", "UV_SYSTEM_CERTS": "1"}
    subprocess.run(
        [find_uv_bin(), "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(ROOT)],
        check=True,
        env=environment,
    )
    (wheel,) = tmp_path.glob("*.whl")
    bare = tmp_path / "bare"
    base = getattr(sys, "_base_executable", sys.executable)
    subprocess.run(
        [find_uv_bin(), "venv", "--quiet", "--no-project", "--python", base, str(bare)], check=True, env=environment
    )
    install = [
        find_uv_bin(),
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--python",
        str(bare / "bin" / "python"),
        str(wheel),
    ]
    subprocess.run(install, check=True, env=environment)
    command = [str(bare / "bin" / "fumehood"), "run", "-c", "print(6*7)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "42\n"
