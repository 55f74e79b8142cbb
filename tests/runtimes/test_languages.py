"""Each language really runs: output, input, arguments, environment, files, errors. A missing one is skipped out loud."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fumehood import Engine, ExecutionRequest, FumehoodError, languages
from fumehood.engine import BASE_ENVIRONMENT
from fumehood.errors import RuntimeUnavailable, UnknownLanguage
from fumehood.runtimes import get, language_of, packages
from fumehood.runtimes.runtime import Host, say_nothing

#: Language to programs: echo arguments, a variable and standard input as JSON; use a neighbour; break the syntax; exit 7.
PROGRAMS = {
    "python": (
        "import json, os, sys\nprint(json.dumps([sys.argv[1:], os.environ['A'], sys.stdin.read()]))",
        ("helper.py", "X = 5", "import helper\nprint(helper.X)"),
        "print(",
        "import sys\nsys.exit(7)",
    ),
    "python-data": (
        "import json, os, sys\nprint(json.dumps([sys.argv[1:], os.environ['A'], sys.stdin.read()]))",
        ("helper.py", "X = 5", "import helper\nprint(helper.X)"),
        "print(",
        "import sys\nsys.exit(7)",
    ),
    "bash": (
        """printf '[["%s","%s"],"%s","%s"]\\n' "$1" "$2" "$A" "$(cat)\"""",
        ("helper.sh", "X=5", ". ./helper.sh; echo $X"),
        "if then",
        "exit 7",
    ),
    "javascript": (
        "const text = require('fs').readFileSync(0, 'utf8');\n"
        "console.log(JSON.stringify([process.argv.slice(2), process.env.A, text]));",
        ("helper.js", "module.exports = 5", "console.log(require('./helper.js'))"),
        "console.log(",
        "process.exit(7)",
    ),
    "typescript": (
        "import { readFileSync } from 'node:fs';\nimport process from 'node:process';\n"
        "const text: string = readFileSync(0, 'utf8');\n"
        "console.log(JSON.stringify([process.argv.slice(2), process.env.A, text]));",
        ("helper.ts", "export const x: number = 5;", "import { x } from './helper.ts';\nconsole.log(x);"),
        "const x: = ;",
        "import process from 'node:process';\nprocess.exit(7);",
    ),
    "ruby": (
        "require 'json'\nputs JSON.generate([ARGV, ENV['A'], STDIN.read])",
        ("helper.rb", "X = 5", "require_relative 'helper'\nputs X"),
        "puts (",
        "exit 7",
    ),
    "php": (
        "<?php echo json_encode([array_slice($argv, 1), getenv('A'), stream_get_contents(STDIN)]), \"\\n\";",
        ("helper.php", "<?php $x = 5;", "<?php require 'helper.php'; echo $x, \"\\n\";"),
        "<?php echo (;",
        "<?php exit(7);",
    ),
}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


@pytest.fixture(params=PROGRAMS)
def language(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    try:
        get(name).start("", None, Host(notice=say_nothing))
    except RuntimeUnavailable as error:
        pytest.skip(f"{name}: {error}")
    return name


def test_every_language_has_its_programs_here() -> None:
    assert set(PROGRAMS) == set(languages())


def test_arguments_environment_and_input_arrive(engine: Engine, language: str) -> None:
    request = ExecutionRequest(
        code=PROGRAMS[language][0], language=language, args=["one", "two words"], env={"A": "wert"}, stdin="ein"
    )
    result = engine.execute(request)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == [["one", "two words"], "wert", "ein"]


def test_a_program_uses_the_file_beside_it(engine: Engine, language: str) -> None:
    name, text, code = PROGRAMS[language][1]
    result = engine.execute(ExecutionRequest(code=code, language=language, files={name: text}))
    assert result.stdout == "5\n", result.stderr


def test_a_syntax_error_is_the_programs_own(engine: Engine, language: str) -> None:
    result = engine.execute(ExecutionRequest(code=PROGRAMS[language][2], language=language))
    assert result.reason == "exited"
    assert result.exit_code != 0
    assert "main" in result.stderr


def test_an_exit_code_is_passed_on(engine: Engine, language: str) -> None:
    assert engine.execute(ExecutionRequest(code=PROGRAMS[language][3], language=language)).exit_code == 7


def test_a_name_in_capitals_is_the_same_language(engine: Engine, language: str) -> None:
    request = ExecutionRequest(code=PROGRAMS[language][3], language=language.upper())
    assert engine.execute(request).language == language


MODULES = {
    "await": "console.log(await Promise.resolve(5))",
    "import": "import fs from 'node:fs'\nconsole.log(fs.existsSync('/work') ? 5 : 0)",
    "require": "console.log(require('fs').existsSync('/work') ? 5 : 0)",
}


@pytest.mark.parametrize("code", MODULES.values(), ids=MODULES.keys())
def test_javascript_may_be_a_module_or_not(engine: Engine, code: str) -> None:
    try:
        result = engine.execute(ExecutionRequest(code=code, language="javascript"))
    except RuntimeUnavailable as error:
        pytest.skip(str(error))
    assert result.stdout == "5\n", result.stderr


def test_bash_sees_only_what_was_passed(engine: Engine) -> None:
    result = engine.execute(ExecutionRequest(code="env", language="bash", env={"A": "1"}))
    seen = dict(line.split("=", 1) for line in result.stdout.splitlines())
    # The shell itself adds three of its own.
    assert {name: value for name, value in seen.items() if name not in ("PWD", "SHLVL", "_")} == {
        **BASE_ENVIRONMENT,
        "A": "1",
    }


def test_an_unknown_language_is_named_with_those_that_are_known(engine: Engine) -> None:
    with pytest.raises(UnknownLanguage, match="'cobol'.*python.*php"):
        engine.execute(ExecutionRequest(code="", language="cobol"))


@pytest.mark.parametrize("language", ["javascript", "ruby", "php", "bash"])
def test_a_missing_interpreter_names_the_package(language: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fumehood", "run", "-l", language, "-c", "x"]
    answer = subprocess.run(
        command, env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 126
    assert "Debian's package `" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_packages_that_cannot_be_installed_say_so_and_leave_nothing(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "XDG_DATA_HOME": str(tmp_path),
        "UV_OFFLINE": "1",
        "UV_CACHE_DIR": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-m", "fumehood", "run", "-c", "print(1)"]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 126
    assert "uv says" in answer.stderr
    assert [path.name for path in (tmp_path / "fumehood" / "runtimes").iterdir()] == [".lock"]
    bare = subprocess.run(
        [sys.executable, "-m", "fumehood", "runtime", "build", "--standard-library"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert bare.returncode == 0, bare.stderr
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout == "1\n"


def test_each_lock_has_the_name_that_its_revision_carries() -> None:
    for name, lock_id in packages.LOCK_IDS.items():
        assert hashlib.sha256(Path(packages.lock(name)).read_bytes()).hexdigest().startswith(lock_id)


def test_suffixes_stand_for_languages() -> None:
    assert [language_of(name) for name in ("a.py", "b.TS", "c.mjs", "d", ".py", "e.txt")] == [
        "python", "typescript", "javascript", None, None, None,
    ]  # fmt: skip


def test_errors_of_ours_share_one_root() -> None:
    assert issubclass(UnknownLanguage, FumehoodError)
    assert issubclass(UnknownLanguage, ValueError)
