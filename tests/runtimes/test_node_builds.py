"""Runtimes of packages for Node.js: built by npm inside the walls from a real registry over HTTP, found by programs, kept apart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fumehood import Engine, ExecutionRequest
from fumehood.errors import InvalidRequest, RuntimeUnavailable, UnknownLanguage
from fumehood.runtimes import build, get, node, packages
from fumehood.runtimes.npm_sources import NpmSources
from fumehood.runtimes.npm_workshop import NpmWorkshop
from fumehood.runtimes.runtime import Host, say_nothing
from fumehood.runtimes.workshop import Orders
from tests.testing.indexes import NpmPackages, make_wheel, npm_registry, serving

pytestmark = pytest.mark.skipif(
    shutil.which("npm") is None or shutil.which("node") is None, reason="no node and npm here"
)

HOST = Host(notice=say_nothing)
PACKAGES: NpmPackages = {
    "colours": {
        "1.0.0": ({"main": "main.js"}, {"main.js": "exports.VERSION = '1.0.0'\n"}),
        "2.0.0": (
            {"main": "main.js", "dependencies": {"@paint/shades": "^1.0.0"}},
            {"main.js": "exports.VERSION = '2.0.0'\nexports.shades = require('@paint/shades')\n"},
        ),
    },
    "@paint/shades": {"1.0.0": ({}, {"index.js": "module.exports = 3\n"})},
    "modern": {"1.0.0": ({"type": "module", "exports": "./m.js"}, {"m.js": "export const modern = true\n"})},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name in [each for each in os.environ if each.lower().startswith("npm_config_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def registry() -> Iterator[str]:
    with serving(npm_registry(PACKAGES)) as (url, _asked):
        yield url


def _manifest(place: Path, **dependencies: str) -> str:
    file = place / "package.json"
    file.write_text(json.dumps({"dependencies": dependencies}), encoding="utf-8")
    return str(file)


def _printed(code: str, name: str | None = None, language: str = "paint") -> str:
    with Engine() as engine:
        result = engine.execute(ExecutionRequest(code=code, language=language, name=name))
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        pytest.param(None, "const c = require('colours'); console.log(c.VERSION, c.shades)", id="require"),
        pytest.param(None, "import c from 'colours'; console.log(c.VERSION, c.shades)", id="import, found out"),
        pytest.param("a.mjs", "import c from 'colours'; console.log(c.VERSION, c.shades)", id="import"),
        pytest.param("a.ts", "import c from 'colours'; const v: string = c.VERSION; console.log(v, c.shades)", id="TypeScript"),
        pytest.param("a.cjs", "import('modern').then(m => console.log(m.modern && '2.0.0 3'))", id="import()"),
    ],
)  # fmt: skip
def test_programs_find_the_packages(place: Path, registry: str, name: str | None, code: str) -> None:
    build.build_own_for_node("paint", _manifest(place, colours="*", modern="*"), HOST, registry=registry)
    assert _printed(code, name) == "2.0.0 3"


def test_a_session_finds_the_packages(place: Path, registry: str) -> None:
    build.build_own_for_node("paint", _manifest(place, colours="*"), HOST, registry=registry)
    with Engine() as engine, engine.session("paint") as session:
        assert session.run("const c = require('colours')").ok
        assert session.run("console.log(c.VERSION)").stdout == "2.0.0\n"


def test_packages_can_be_read_and_not_written(place: Path, registry: str) -> None:
    build.build_own_for_node("paint", _manifest(place, colours="*"), HOST, registry=registry)
    code = "try { require('fs').writeFileSync('/node_modules/colours/main.js', '') } catch (e) { console.log(e.code) }"
    assert _printed(code) == "EROFS"


def test_other_languages_do_not_see_them(place: Path, registry: str) -> None:
    build.build_own_for_node("paint", _manifest(place, colours="*"), HOST, registry=registry)
    code = "console.log(require('fs').existsSync('/node_modules'))"
    assert _printed(code, language="javascript") == "false"


def test_nothing_of_a_package_runs_while_it_is_built(place: Path) -> None:
    scripts = dict.fromkeys(
        ("preinstall", "install", "postinstall", "prepare"), "node -e \"fs.writeFileSync('ran', '')\""
    )
    evil: NpmPackages = {"colours": {"1.0.0": ({"scripts": scripts}, {"index.js": "", "binding.gyp": "{}"})}}
    manifest = _manifest(place, colours="*")
    Path(manifest).write_text(json.dumps({"dependencies": {"colours": "*"}, "scripts": scripts}), encoding="utf-8")
    (place / "home" / ".npmrc").write_text("ignore-scripts=false\n")
    with serving(npm_registry(evil)) as (url, _asked):
        path = Path(build.build_own_for_node("paint", manifest, HOST, registry=url))
    assert (path / "node_modules" / "colours" / "binding.gyp").exists()
    assert list(path.rglob("ran")) == []


def test_npm_runs_inside_the_walls_with_no_way_out_but_the_gateway(place: Path) -> None:
    seen: list[tuple[str, str, str]] = []

    def watch() -> None:
        # It waits for our answer, so it is there to be looked at.
        for pid in filter(str.isdigit, os.listdir("/proc")):
            folder = Path("/proc", pid)
            try:
                # npm puts its own name and what it is asked to do there.
                if (
                    not folder.joinpath("cmdline")
                    .read_bytes()
                    .startswith((b"npm install --package-lock-only", b"npm ci"))
                ):
                    continue
                seen.append(
                    (
                        folder.joinpath("status").read_text(),
                        folder.joinpath("net/dev").read_text(),
                        folder.joinpath("mountinfo").read_text(),
                    )
                )
            except OSError:
                continue  # it has ended

    with serving(npm_registry(PACKAGES, watch=watch)) as (url, _asked):
        build.build_own_for_node("paint", _manifest(place, colours="*"), HOST, registry=url)
    assert seen
    for status, devices, mounts in seen:
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert (facts["Seccomp"], facts["NoNewPrivs"], facts["CapEff"]) == ("2", "1", "0" * 16)
        assert len(facts["NSpid"].split()) > 1
        assert [line.split(":")[0].strip() for line in devices.splitlines()[2:]] == ["lo"]
        writable = {line.split()[4] for line in mounts.splitlines() if "rw" in line.split()[5].split(",")}
        assert writable == {"/work", "/tmp", "/dev/shm", "/proc", "/opt/fumehood/build"}


def test_the_lock_is_kept_and_says_nothing_of_where_packages_came_from(place: Path) -> None:
    with (
        serving(npm_registry(PACKAGES)) as (files, _asked),
        serving(npm_registry(PACKAGES, files)) as (url, _asked_too),
    ):
        manifest = _manifest(place, colours="*")
        path = Path(build.build_own_for_node("paint", manifest, HOST, registry=url, allowed_hosts=(files,)))
    lock = (path / "package-lock.json").read_text(encoding="utf-8")
    assert json.loads(lock)["packages"]["node_modules/colours"]["integrity"].startswith("sha512-")
    assert "127.0.0.1" not in lock
    assert sorted(os.listdir(packages.folder())) == [".lock", packages.NAMES, path.name]
    assert {each.lstat().st_uid for each in (path, *path.rglob("*"))} == {os.geteuid()}


def test_one_lock_is_one_revision_and_another_lock_another(place: Path, registry: str) -> None:
    heard: list[float] = []
    first = build.build_own_for_node("paint", _manifest(place, colours="^1.0.0"), HOST, registry=registry)
    with serving(npm_registry(PACKAGES)) as (elsewhere, _asked):
        host = Host(notice=lambda _sentence, done: heard.append(done))
        assert build.build_own_for_node("paint", _manifest(place, colours="^1.0.0"), host, registry=elsewhere) == first
        assert 0.0 not in heard
        second = build.build_own_for_node("paint", _manifest(place, colours="^2.0.0"), host, registry=elsewhere)
    heard = heard[heard.index(0.0) :]
    assert heard == sorted(heard)
    assert (heard[-1], len(set(heard)) > 3) == (1.0, True)
    assert second != first
    assert Path(first, "node_modules", "colours").is_dir()
    assert _printed("console.log(require('colours').VERSION)") == "2.0.0"


def test_nothing_to_install_is_a_runtime_without_packages(place: Path, registry: str) -> None:
    build.build_own_for_node("paint", _manifest(place), HOST, registry=registry)
    assert (
        _printed("console.log(require('fs').readdirSync('/node_modules').filter(each => each[0] != '.').length)") == "0"
    )


@pytest.mark.parametrize(
    ("version", "says"),
    [
        pytest.param("^9.0.0", "colours@", id="no such version"),
        pytest.param("file:../../etc", "npm", id="a path of the host's"),
    ],
)
def test_what_cannot_be_met_is_told_in_npms_words_and_leaves_nothing(place: Path, registry: str, version: str, says: str) -> None:  # fmt: skip
    with pytest.raises(RuntimeUnavailable, match=rf"npm says:\n(.|\n)*{says}") as caught:
        build.build_own_for_node("paint", _manifest(place, colours=version), HOST, registry=registry)
    assert "npm http" not in str(caught.value)
    assert build.installed() == []
    assert packages.own("paint") is None


def test_a_host_that_nothing_names_is_refused_until_it_is_allowed(place: Path) -> None:
    manifest = _manifest(place, colours="^1.0.0")
    with serving(npm_registry(PACKAGES)) as (files, asked), serving(npm_registry(PACKAGES, files)) as (url, _asked):
        with pytest.raises(RuntimeUnavailable, match=f"--allow-host {files.removeprefix('http://')}"):
            build.build_own_for_node("paint", manifest, HOST, registry=url)
        assert asked == []
        assert build.installed() == []
        build.build_own_for_node("paint", manifest, HOST, registry=url, allowed_hosts=(files,))
        assert asked == ["/colours/-/1.0.0.tgz"]


def test_a_file_that_is_not_what_its_hash_says_is_refused(place: Path) -> None:
    good, other = npm_registry(PACKAGES), npm_registry({"colours": {"1.0.0": ({}, {"index.js": "evil()"})}})
    with (
        serving(lambda path: (other if path.endswith(".tgz") else good)(path)) as (url, _asked),
        pytest.raises(RuntimeUnavailable, match="EINTEGRITY"),
    ):
        build.build_own_for_node("paint", _manifest(place, colours="1.0.0"), HOST, registry=url)
    assert build.installed() == []


@pytest.mark.parametrize("name", ["environment", "environment/node_modules"])
def test_a_link_that_a_build_left_is_not_taken_for_its_folder(place: Path, name: str) -> None:
    scratch = place / "scratch"
    scratch.mkdir()
    with NpmWorkshop("paint", scratch, NpmSources({}), HOST, Orders()) as workshop:
        (scratch / "place" / name).parent.mkdir(exist_ok=True)
        (scratch / "place" / name).symlink_to("/usr")
        with pytest.raises(RuntimeUnavailable, match="left no folder"):
            workshop.made()


@pytest.mark.parametrize(
    ("environment", "beside", "users", "host"),
    [
        pytest.param(None, None, None, ("registry.npmjs.org", 443), id="the usual one"),
        pytest.param(None, None, "; mine\nregistry = https://one.example:8443/npm/\n", ("one.example", 8443), id="the user's"),
        pytest.param(None, "registry=http://two.example", "registry=https://one.example", ("two.example", 80), id="the project's first"),
        pytest.param("https://three.example", "registry=http://two.example", None, ("three.example", 443), id="the environment's first"),
        pytest.param(None, None, "registry=https://${PLACE}.example", ("four.example", 443), id="a variable"),
        pytest.param(None, None, "@paint:registry=https://one.example\n//x/:_authToken=s3cret", ("registry.npmjs.org", 443), id="no other lines"),
    ],
)  # fmt: skip
def test_npms_own_settings_say_which_registry(
    place: Path, monkeypatch: pytest.MonkeyPatch, environment: str | None, beside: str | None, users: str | None, host: tuple[str, int],
) -> None:  # fmt: skip
    monkeypatch.setenv("PLACE", "four")
    if environment is not None:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", environment)
    for folder, text in ((place, beside), (place / "home", users)):
        if text is not None:
            (folder / ".npmrc").write_text(text, encoding="utf-8")
    sources = NpmSources({}, beside=place)
    assert sources.hosts == {host}
    assert "s3cret" not in repr((sources.environment, sources.laid, sources.manifest))


@pytest.mark.parametrize(
    "registry", ["https://u:p@one.example/", "ftp://one.example", "one.example", "file:///srv/npm", "https://a:x/"]
)
def test_a_registry_that_cannot_be_is_refused(place: Path, registry: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        NpmSources({}, registry=registry)
    assert "p@" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "no JSON"), ("[]", "no `dependencies`"), ('{"dependencies": {"a": 1}}', "no `dependencies`"), ("[" * 100_000, "no JSON")],
    ids=["half", "a list", "a number", "deep"],
)  # fmt: skip
def test_a_package_json_that_cannot_be_read_is_refused(place: Path, text: str, says: str) -> None:
    (place / "package.json").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidRequest, match=says):
        build.build_own_for_node("paint", str(place / "package.json"), HOST)
    with pytest.raises(InvalidRequest, match="not a file"):
        build.build_own_for_node("paint", str(place / "none.json"), HOST)


def test_a_runtime_of_another_node_is_not_used(place: Path, registry: str) -> None:
    path = Path(build.build_own_for_node("paint", _manifest(place, colours="*"), HOST, registry=registry))
    major = node.find()[1][0]
    other = path.name.replace(f"-{major}-", f"-{major}9-")
    path.rename(path.parent / other)
    (path.parent / packages.NAMES / "paint").write_text(other, encoding="utf-8")
    with pytest.raises(RuntimeUnavailable, match="not built for this Node"):
        _printed("")


def test_a_name_may_go_from_one_language_to_the_other_and_all_of_it_is_removed(place: Path, registry: str) -> None:
    make_wheel(place, "colours", {"colours.py": b"VERSION = '1.0'\n"})
    requirements = place / "requirements.txt"
    requirements.write_text(f"--no-index\n--find-links {place}\ncolours\n", encoding="utf-8")
    build.build_own("paint", str(requirements), HOST)
    assert packages.own_language("paint") == "python"
    build.build_own_for_node("paint", _manifest(place, colours="*"), HOST, registry=registry)
    assert packages.own_language("paint") == "javascript"
    assert _printed("console.log(require('colours').VERSION)") == "2.0.0"
    assert {build.runtime_of(each) for each in build.installed()} == {"paint"}
    assert len(build.remove("paint")) == 2
    with pytest.raises(UnknownLanguage):
        get("paint")


def test_the_command_builds_lists_and_removes(place: Path, registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", registry)

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "fumehood", *words], capture_output=True, text=True, check=False)

    manifest = _manifest(place, colours="*")
    built = command("runtime", "build", "--package-json", manifest, "--name", "paint")
    assert built.returncode == 0, built.stderr
    rows = json.loads(command("runtime", "list", "--json").stdout)
    assert [(row["runtime"], row["language"], row["current"], row["path"]) for row in rows] == [
        ("paint", "javascript", True, built.stdout.strip())
    ]
    ran = command("run", "--language", "paint", "-c", "console.log(require('colours').VERSION)")
    assert ran.stdout == "2.0.0\n", ran.stderr
    assert command("runtime", "remove", rows[0]["revision"]).returncode == 0
    assert json.loads(command("runtime", "list", "--json").stdout) == []
    assert command("runtime", "build", "--package-json", manifest).returncode == 2
    both = command("runtime", "build", "--package-json", manifest, "--requirements", manifest, "--name", "paint")
    assert both.returncode == 2
