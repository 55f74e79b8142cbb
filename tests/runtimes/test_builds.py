"""Builds run inside the walls and reach the package index alone: seen from the host's side, with a real index over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fumehood.errors import InvalidRequest, RuntimeUnavailable
from fumehood.runtimes import build, packages
from fumehood.runtimes.runtime import Host, say_nothing
from fumehood.runtimes.sources import Sources
from fumehood.sandbox.disk import take_over
from tests.testing.indexes import make_wheel, python_index, serving

HOST = Host(notice=say_nothing)
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name in [each for each in os.environ if each.startswith("UV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def _requirements(place: Path, *lines: str) -> str:
    file = place / "requirements.txt"
    file.write_text("\n".join([*lines, "colours"]) + "\n", encoding="utf-8")
    return str(file)


def _builders() -> dict[int, str]:
    """Return the processes that are a build's uv, with what the kernel says of each."""
    found: dict[int, str] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if line.startswith(b"/opt/fumehood/uv\0pip"):
                found[int(pid)] = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        except OSError:
            continue  # it has ended
    return found


def test_uv_runs_inside_the_walls_with_no_way_out_but_the_gateway(place: Path) -> None:
    seen: list[tuple[str, str, str]] = []

    def watch() -> None:
        # It waits for our answer, so it is there to be looked at.
        for pid, status in _builders().items():
            devices = Path(f"/proc/{pid}/net/dev").read_text(encoding="utf-8")
            seen.append((status, devices, Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8")))

    wheel = make_wheel(place, "colours", {"colours.py": b"VERSION = '1.0'\n"})
    with serving(python_index(wheel, watch=watch)) as (url, asked):
        path = build.build_own("paint", _requirements(place, f"--index-url {url}/simple"), HOST)
    assert f"/files/{wheel.name}" in asked
    assert seen
    for status, devices, mounts in seen:
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert (facts["Seccomp"], facts["NoNewPrivs"], facts["CapEff"]) == ("2", "1", "0" * 16)
        assert len(facts["NSpid"].split()) > 1
        assert [line.split(":")[0].strip() for line in devices.splitlines()[2:]] == ["lo"]
        writable = {line.split()[4] for line in mounts.splitlines() if "rw" in line.split()[5].split(",")}
        assert writable == {"/work", "/tmp", "/dev/shm", "/proc", "/opt/fumehood/build"}
    assert Path(
        path, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages", "colours.py"
    ).exists()


def test_a_host_that_nothing_names_is_refused_until_it_is_allowed(place: Path) -> None:
    wheel = make_wheel(place, "colours", {"colours.py": b""})
    with serving(python_index(wheel)) as (files, asked), serving(python_index(wheel, files)) as (url, _asked):
        requirements = _requirements(place, f"--index-url {url}/simple")
        elsewhere = files.removeprefix("http://")
        with pytest.raises(RuntimeUnavailable, match=f"--allow-host {elsewhere}"):
            build.build_own("paint", requirements, HOST)
        assert asked == []
        assert build.installed() == []
        build.build_own("paint", requirements, HOST, allowed_hosts=(files,))
        assert asked != []
    assert packages.own("paint") is not None


def test_nothing_of_a_package_runs_while_it_is_built(place: Path) -> None:
    into = b"import os, sys; open(os.path.join(sys.prefix, 'ran'), 'w'); open('/opt/fumehood/build/ran', 'w')"
    wheel = make_wheel(place, "colours", {"colours.py": b"", "colours.pth": into, "sitecustomize.py": into})
    with serving(python_index(wheel)) as (url, _asked):
        path = Path(build.build_own("paint", _requirements(place, f"--index-url {url}/simple"), HOST))
    assert not (path / "ran").exists()
    packed = list(path.rglob("sitecustomize.*.pyc"))
    assert len(packed) == 1, "it was compiled"


def test_files_that_are_no_python_do_not_fail_a_build(place: Path) -> None:
    wheel = make_wheel(
        place, "colours", {"colours.py": b"", "template.py": b"{{ name }} = (\n", "bytes.py": b"\xff\xfe\x00"}
    )
    with serving(python_index(wheel)) as (url, _asked):
        path = Path(build.build_own("paint", _requirements(place, f"--index-url {url}/simple"), HOST))
    assert (
        path / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages" / "template.py"
    ).exists()


def test_what_is_built_belongs_to_whoever_builds_and_no_scratch_is_left(place: Path) -> None:
    wheel = make_wheel(place, "colours", {"colours.py": b""})
    with serving(python_index(wheel)) as (url, _asked):
        path = Path(build.build_own("paint", _requirements(place, f"--index-url {url}/simple"), HOST))
    assert {each.lstat().st_uid for each in (path, *path.rglob("*"))} == {os.geteuid()}
    assert sorted(os.listdir(packages.folder())) == [".lock", packages.NAMES, path.name]


def test_a_packages_file_with_the_locks_name_takes_its_place_nowhere(place: Path) -> None:
    wheel = make_wheel(place, "colours", {"colours.py": b"", "colours-1.0.data/data/requirements.lock": b"evil==1.0\n"})
    with serving(python_index(wheel)) as (url, _asked):
        path = Path(build.build_own("paint", _requirements(place, f"--index-url {url}/simple"), HOST))
    assert (path / "requirements.lock").read_text(encoding="utf-8").startswith("colours==1.0")


@AS_ROOT
def test_an_archive_that_would_fill_the_disk_is_stopped(place: Path) -> None:
    make_wheel(place, "colours", {"colours.py": b"", "bomb": bytes(128 << 20)})
    small = place / "data"
    small.mkdir()
    script = 'mount -t tmpfs -o size=300m none "$1" && shift && exec "$@"'
    requirements = _requirements(place, f"--no-index\n--find-links {place}")
    answer = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(small), sys.executable, "-m", "fumehood", "runtime", "build",
         "--requirements", requirements, "--name", "paint"], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode != 0
    assert "it filled the disk" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_where_the_walls_do_not_hold_nothing_is_built(place: Path) -> None:
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    requirements = _requirements(place, "--no-index")
    answer = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", sys.executable, "-m", "fumehood", "runtime",
         "build", "--requirements", requirements, "--name", "paint"], capture_output=True, text=True, check=False,
        env={**os.environ, "XDG_CACHE_HOME": str(place / "cache")},
    )  # fmt: skip
    assert answer.returncode == 125
    assert "max_user_namespaces" in answer.stderr
    assert "uv says" not in answer.stderr


def test_a_tree_that_is_taken_over_has_plain_modes_and_no_link_of_it_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("x")
    outside.chmod(0o600)
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    for name, mode in {"setuid": 0o4755, "setgid": 0o2711, "open": 0o666, "closed": 0o400}.items():
        (tree / "deep" / name).write_text("x")
        (tree / "deep" / name).chmod(mode)
    (tree / "deep").chmod(0o2777)
    (tree / "link").symlink_to(outside)
    (tree / "folder").symlink_to(tmp_path)
    take_over(tree)
    modes = {each.name: each.stat().st_mode & 0o7777 for each in (tree / "deep").iterdir()}
    assert modes == {"setuid": 0o755, "setgid": 0o755, "open": 0o644, "closed": 0o644}
    assert (tree / "deep").stat().st_mode & 0o7777 == 0o755
    assert outside.stat().st_mode & 0o7777 == 0o600


def test_requirements_read_the_same_inside_with_their_places_mounted(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = place / "wheels"
    wheels.mkdir(mode=0o755)
    make_wheel(wheels, "shapes", {"shapes.py": b""})
    (place / "more.txt").write_text("numpy==2.0 \\\n  --hash=sha256:ab\n--find-links wheels\n")
    (place / "limits.txt").write_text("requests<3\n")
    monkeypatch.setenv("TOKEN", "s3cret")
    lines = [
        "-r more.txt", "-c limits.txt", "--extra-index-url=https://u:${TOKEN}@index.example:8443/simple", "# a comment", "",
        "pandas[excel]>=2 ; python_version > '3'  # why", f"shapes @ file://{wheels}/shapes-1.0-py3-none-any.whl",
        "x @ https://files.example/x-1.0-py3-none-any.whl", "./wheels/shapes-1.0-py3-none-any.whl",
    ]  # fmt: skip
    sources = Sources(_requirements(place, *lines))
    first, more, limits = (sources.requirements[f"requirements-{n}.txt"].decode().splitlines() for n in range(3))
    folder, wheel = (inside for host, inside in sources._places.items())
    assert [*first] == [
        "-r requirements-1.txt", "-c requirements-2.txt", "--extra-index-url https://u:s3cret@index.example:8443/simple", "", "",
        "pandas[excel]>=2 ; python_version > '3'", f"shapes @ file://{wheel}", "x @ https://files.example/x-1.0-py3-none-any.whl",
        wheel, "colours",
    ]  # fmt: skip
    assert [line.split() for line in more] == [["numpy==2.0", "--hash=sha256:ab"], ["--find-links", folder]]
    assert limits == ["requests<3"]
    assert sources.where == [f"--find-links {folder}", "--extra-index-url https://u:s3cret@index.example:8443/simple"]
    assert sources.hosts == {
        ("index.example", 8443), ("files.example", 443), ("pypi.org", 443), ("files.pythonhosted.org", 443),
    }  # fmt: skip
    assert sources.outside(f"no {wheel}") == f"no {wheels}/shapes-1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    ("line", "hosts"),
    [
        ("--no-index", set()),
        ("--index-url https://index.example/simple", {("index.example", 443)}),
        ("-i http://index.example/simple", {("index.example", 80)}),
    ],
)
def test_another_index_takes_the_place_of_the_usual_one(place: Path, line: str, hosts: set[tuple[str, int]]) -> None:
    assert Sources(_requirements(place, line)).hosts == hosts


def test_uvs_own_settings_hold_from_its_file_and_its_environment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = place / "config" / "uv" / "uv.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(
        'extra-index-url = ["https://two.example/simple"]\n[[index]]\nurl = "https://one.example/simple"\ndefault = true\n'
    )
    sources = Sources()
    assert sources.environment["UV_DEFAULT_INDEX"] == "https://one.example/simple"
    assert sources.environment["UV_INDEX"] == "https://two.example/simple"
    assert sources.hosts == {("one.example", 443), ("two.example", 443)}
    monkeypatch.setenv("UV_INDEX", "inner=https://three.example/simple https://four.example/simple")
    sources = Sources()
    assert sources.environment["UV_INDEX"] == "inner=https://three.example/simple https://four.example/simple"
    assert sources.hosts == {("one.example", 443), ("three.example", 443), ("four.example", 443)}
    settings.write_text("index = [")
    with pytest.raises(InvalidRequest, match=r"uv\.toml"):
        Sources()


@pytest.mark.parametrize("host", ["", "a/b", "a:x", "https://a/b", "ftp://a", "a:99999"])
def test_a_host_that_cannot_be_is_refused(place: Path, host: str) -> None:
    with pytest.raises(InvalidRequest, match="host"):
        build.build_own("paint", _requirements(place), HOST, allowed_hosts=(host,))
