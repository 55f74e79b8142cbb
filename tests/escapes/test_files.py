"""Attacks on the file tree: reading and writing what is the host's, and what other executions left."""

from __future__ import annotations

import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Attack


@pytest.fixture
def secret() -> Iterator[Path]:
    """A file of the host's that anybody may read, with a text that is nowhere else."""
    folder = Path(tempfile.mkdtemp(prefix="host-", dir="/var/tmp"))
    folder.chmod(0o755)
    path = folder / "secret"
    path.write_text(secrets.token_hex(16))
    path.chmod(0o644)
    yield path
    path.unlink()
    folder.rmdir()


ROUTES = {
    "p01_directly": "open(path)",
    "p03_through_proc_self_root": "open('/proc/self/root' + path)",
    "p03_through_proc_1_root": "open('/proc/1/root' + path)",
    "p04_by_parent_folders": "open('../' * 64 + path)",
    "p04_through_proc_self_cwd": "open('/proc/self/cwd/' + '../' * 64 + path)",
    "p13_through_a_link": "os.symlink(path, 'link') or open('link')",
    "p117_past_a_language_guard": "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'FileLoader'][0]"
    "('x', path).get_data(path) and open(path)",
}


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES.keys())
def test_a_host_file_cannot_be_read(attack: Attack, secret: Path, route: str) -> None:
    result = attack(f"path = sys.argv[1]\nprint(({route}).read())", args=[str(secret)])
    assert secret.read_text() not in result.stdout
    assert result.exit_code != 0


def test_p01_no_file_of_the_users_or_the_systems_is_there(attack: Attack) -> None:
    places = ["/etc/shadow", "/root", "/home", "/var", "/boot", "/opt/secret", "/run", "/srv", "/mnt", "/media"]
    # An interpreter that lies in somebody's home is shown there, and nothing beside it.
    base = Path(os.path.realpath(sys.base_prefix))
    expected = [f"{base}: ['bin', 'lib']", f"there is /{base.parts[1]}"]
    expected += [f"{folder}: {[part]}" for folder, part in zip(base.parents, base.parts[::-1], strict=False)]
    result = attack(f"""
        for place in {places}:
            if os.path.lexists(place):
                print("there is", place)
            while os.path.isdir(place):
                found = sorted(os.listdir(place))
                print(f"{{place}}: {{found}}")
                if len(found) != 1:
                    break
                place = os.path.join(place, found[0])
    """)
    assert set(result.stdout.splitlines()) <= set(expected)


def test_p02_the_library_folder_is_read_only(attack: Attack) -> None:
    result = attack("""
        place = os.path.join(os.path.dirname(os.__file__), "fumehood-escape")
        print(tried(lambda: open(place, "w")))
        if os.path.exists(place):
            print("and it is there")
            os.unlink(place)
        print(all(os.statvfs(p).f_flag & os.ST_RDONLY for p in (os.path.dirname(os.__file__), "/usr/lib")))
    """)
    # An ordinary user of the host might not write there either; the mount itself must say no.
    assert result.stdout == "EROFS\nTrue\n"


def test_p02_the_root_and_etc_are_read_only(attack: Attack) -> None:
    result = attack("""
        for place in ("/fumehood-escape", "/etc/fumehood-escape", "/usr/bin/fumehood-escape"):
            print(tried(lambda: os.close(os.open(place, os.O_CREAT | os.O_WRONLY))))
            if os.path.exists(place):
                os.unlink(place)
    """)
    assert result.stdout == "EROFS\n" * 3


def test_p06_no_descriptor_of_the_hosts_leaks(attack: Attack, secret: Path) -> None:
    leaked = os.open(secret.parent, os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(leaked, True)
    try:
        result = attack("""
            for number in range(3, 1024):
                try:
                    print(number, os.listdir(number))
                except OSError:
                    pass
        """)
    finally:
        os.close(leaked)
    assert result.stdout == ""


def test_p08_dev_holds_five_devices_and_no_more(attack: Attack) -> None:
    result = attack("""
        import stat
        print(sorted(name for name in os.listdir("/dev") if stat.S_ISCHR(os.lstat("/dev/" + name).st_mode)
                     or stat.S_ISBLK(os.lstat("/dev/" + name).st_mode)))
    """)
    assert result.stdout == "['full', 'null', 'random', 'urandom', 'zero']\n"


@pytest.mark.parametrize("number", [(1, 1), (0, 0)], ids=["memory", "whiteout"])
def test_p08_a_device_cannot_be_made(attack: Attack, number: tuple[int, int], request: pytest.FixtureRequest) -> None:
    if number == (1, 1):
        request.getfixturevalue("as_root")  # the other one, an overlay's mark, anybody may make
    result = attack(f"import stat\nprint(tried(lambda: os.mknod('device', stat.S_IFCHR | 0o666, os.makedev{number})))")
    assert result.stdout in ("EPERM\n", "EACCES\n")


def test_p11_setuid_programs_gain_nothing(attack: Attack) -> None:
    result = attack("""
        places = ["/", "/usr/bin", "/usr/lib", "/work", "/tmp", "/dev/shm"]
        print(all(os.statvfs(p).f_flag & os.ST_NOSUID for p in places if os.path.isdir(p)))
        print([line for line in open("/proc/self/status") if line.startswith("NoNewPrivs")])
    """)
    assert result.stdout == "True\n['NoNewPrivs:\\t1\\n']\n"


def test_p12_every_writable_mount_refuses_devices(attack: Attack) -> None:
    result = attack("print(all(os.statvfs(p).f_flag & os.ST_NODEV for p in ('/', '.', '/tmp', '/dev/shm')))")
    assert result.stdout == "True\n"


def test_p27_the_folder_of_another_execution_cannot_be_found(attack: Attack) -> None:
    marker = secrets.token_hex(8)
    attack(f"open('/tmp/{marker}', 'w').close(); open('/dev/shm/{marker}', 'w').close()")
    result = attack(f"""
        found = []
        for top in ("/tmp", "/dev/shm", "/var/tmp", "/work", "/run"):
            for folder, folders, files in os.walk(top):
                found += [os.path.join(folder, name) for name in files if name == "{marker}"]
        print(found)
    """)
    for folder in ("/tmp", "/dev/shm"):
        Path(folder, marker).unlink(missing_ok=True)
    assert result.stdout == "[]\n"


def test_p28_shared_memory_does_not_outlive_its_execution(attack: Attack) -> None:
    name = f"escape-{secrets.token_hex(8)}"
    attack(
        f"from multiprocessing import resource_tracker, shared_memory as s\nresource_tracker.register = print\n"
        f"s.SharedMemory('{name}', create=True, size=4096)"
    )
    on_host = Path("/dev/shm", name)
    left = on_host.exists()
    on_host.unlink(missing_ok=True)
    assert not left


def test_p83_a_control_socket_of_the_hosts_is_not_there(attack: Attack, secret: Path) -> None:
    import socket

    path = secret.with_name("docker.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)
        server.listen()
        server.settimeout(0.2)
        result = attack(
            "s = socket.socket(socket.AF_UNIX)\nprint(tried(lambda: s.connect(sys.argv[1])))", args=[str(path)]
        )
        path.unlink()
        with pytest.raises(TimeoutError):
            server.accept()[0].close()
    assert result.stdout == "ENOENT\n"


def test_p103_no_secret_of_the_hosts_environment_is_seen(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = secrets.token_hex(16)
    monkeypatch.setenv("ESCAPE_TEST_KEY", secret)
    result = attack("""
        import glob
        seen = repr(dict(os.environ)) + repr(sys.argv)
        for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
            try:
                seen += open(path, errors="replace").read()
            except OSError:
                pass
        print(seen)
    """)
    assert secret not in result.stdout


MOUNTS = {
    "p09_tmpfs": "mount(b'none', b'spot', b'tmpfs', 0)",
    "p09_proc": "mount(b'none', b'spot', b'proc', 0)",
    "p09_bind": "mount(b'spot', b'spot', None, 4096)",
    "p10_remount": "mount(b'spot', b'spot', None, 4096) + mount(None, b'spot', None, 32 | 4096 | 1)",
}


@pytest.mark.parametrize("call", MOUNTS.values(), ids=MOUNTS.keys())
def test_nothing_can_be_mounted(attack: Attack, call: str) -> None:
    result = attack(f"""
        def mount(source, target, kind, flags):
            ctypes.set_errno(0)
            failed = libc.mount(source, target, kind, ctypes.c_ulong(flags), None)
            return [errno.errorcode[ctypes.get_errno()]] if failed else ["done"]
        os.mkdir("spot")
        print(set({call}), open("/proc/self/mountinfo").read().count("/spot "))
        libc.umount2(b"spot", 2)
    """)
    assert result.stdout == "{'EPERM'} 0\n"


def test_p10_nothing_can_be_unmounted(attack: Attack) -> None:
    result = attack("""
        before = open("/proc/self/mountinfo").read().count("\\n")
        # The one that is on top of nothing of anybody's without walls.
        os.mkdir("spot")
        libc.mount(b"spot", b"spot", None, ctypes.c_ulong(4096), None)
        ctypes.set_errno(0)
        places = [b"spot"] if os.path.isdir("/sys") else [b"spot", b"/work", b"/tmp", b"/usr/lib", b"/proc", b"/dev/null"]
        print({"done" if libc.umount2(p, 2) == 0 else errno.errorcode[ctypes.get_errno()] for p in places})
        print(before - open("/proc/self/mountinfo").read().count("\\n"))
    """)
    assert result.stdout == "{'EPERM'}\n0\n"


def test_p25_a_file_planted_in_the_home_folder_is_not_in_the_hosts(attack: Attack) -> None:
    name = f".fumehood-escape-{secrets.token_hex(8)}"
    result = attack(f"open(os.path.expanduser('~/{name}'), 'w').write('planted')\nprint('planted')")
    on_host = Path.home() / name
    there = on_host.exists()
    on_host.unlink(missing_ok=True)
    assert result.stdout == "planted\n"
    assert not there


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
def test_p28_a_file_left_in_a_shared_folder_is_not_on_the_host(attack: Attack, folder: str) -> None:
    path = Path(folder, f"escape-{secrets.token_hex(8)}")
    result = attack("open(sys.argv[1], 'w').write('left')\nprint('left')", args=[str(path)])
    there = path.exists()
    path.unlink(missing_ok=True)
    assert result.stdout == "left\n"
    assert not there


def test_p83_no_key_or_token_lies_where_clouds_and_clusters_put_them(attack: Attack) -> None:
    home, name = Path.home(), f"escape-{secrets.token_hex(8)}"
    planted = home / f".{name}" / "credentials"
    planted.parent.mkdir()
    planted.write_text(name)
    places = ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/secrets"]
    result = attack(
        f"""
        for place in [*{places}, *sys.argv[1:]]:
            if os.path.lexists(place):
                print(place)
        print("looked")
        """,
        args=[str(planted)],
    )
    planted.unlink()
    planted.parent.rmdir()
    assert result.stdout == "looked\n"
