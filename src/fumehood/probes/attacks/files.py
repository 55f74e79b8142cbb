"""Attacks on the file tree: reading and writing what is the host's, and what other executions left."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..host_side import in_environment, inheritable, listening, nobody_came, secret_file, taken_from_host
from ..suite import Suite, holds, one_of, same

if TYPE_CHECKING:
    from ..target import Target

SUITE = Suite("files")


@SUITE.probe_each(
    "P03",
    {
        "P01 directly": "open(path)",
        "P03 through /proc/self/root": "open('/proc/self/root' + path)",
        "P03 through /proc/1/root": "open('/proc/1/root' + path)",
        "P04 by parent folders": "open('../' * 64 + path)",
        "P04 through /proc/self/cwd": "open('/proc/self/cwd/' + '../' * 64 + path)",
        "P13 through a link": "os.symlink(path, 'link') or open('link')",
        "P117 past a language's guard": "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'FileLoader'][0]"
        "('x', path).get_data(path) and open(path)",
    },
    tried="read a file of the host's that anybody may read, {}", expected="it is not there", wall="files",
)  # fmt: skip
def a_host_file_cannot_be_read(target: Target, route: str) -> None:
    with secret_file() as secret:
        result = target.run(f"path = sys.argv[1]\nprint(({route}).read())", args=[str(secret)])
        holds(secret.read_text() not in result.stdout, "the file was read")
        holds(result.exit_code != 0, "the program found something to open")


@SUITE.probe(
    "P01",
    tried="look into /root, /home, /etc/shadow, /var, /run, /srv and more",
    expected="nothing is there",
    wall="files",
)
def no_file_of_the_users_or_the_systems_is_there(target: Target) -> None:
    places = ["/etc/shadow", "/root", "/home", "/var", "/boot", "/opt/secret", "/run", "/srv", "/mnt", "/media"]
    # An interpreter that lies in somebody's home is shown there, and nothing beside it.
    base = Path(os.path.realpath(sys.base_prefix))
    expected = [f"{base}: ['bin', 'lib']", f"there is /{base.parts[1]}"]
    expected += [f"{folder}: {[part]}" for folder, part in zip(base.parents, base.parts[::-1], strict=False)]
    # A link to the program's own folder, for programs that look for it there.
    expected += ["there is /mnt", "/mnt: ['req']", "/mnt/req: ['main.py']"]
    result = target.run(f"""
        for place in {places}:
            if os.path.lexists(place):
                print("there is", place)
            while os.path.isdir(place):
                found = sorted(os.listdir(place))
                print(f"{{place}}: {{found}}")
                if len(found) != 1:
                    break
                place = os.path.join(place, found[0])
        print("looked")
    """)
    same(sorted(set(result.stdout.splitlines()) - {*expected, "looked"}), [])
    holds("looked\n" in result.stdout, "the program did not look to the end")


@SUITE.probe("P02", tried="write into the folder of the language's libraries", expected="EROFS", wall="files")
def the_library_folder_is_read_only(target: Target) -> None:
    result = target.run("""
        place = os.path.join(os.path.dirname(os.__file__), "fumehood-escape")
        print(tried(lambda: open(place, "w")))
        if os.path.exists(place):
            print("and it is there")
            os.unlink(place)
        print(all(os.statvfs(p).f_flag & os.ST_RDONLY for p in (os.path.dirname(os.__file__), "/usr/lib")))
    """)
    # An ordinary user of the host might not write there either; the mount itself must say no.
    same(result.stdout, "EROFS\nTrue\n")


@SUITE.probe("P02", tried="write into /, /etc and /usr/bin", expected="EROFS", wall="files")
def the_root_and_etc_are_read_only(target: Target) -> None:
    result = target.run("""
        for place in ("/fumehood-escape", "/etc/fumehood-escape", "/usr/bin/fumehood-escape"):
            print(tried(lambda: os.close(os.open(place, os.O_CREAT | os.O_WRONLY))))
            if os.path.exists(place):
                os.unlink(place)
    """)
    same(result.stdout, "EROFS\n" * 3)


@SUITE.probe(
    "P06", tried="list every descriptor that is open, for a folder of the host's", expected="none", wall="files"
)
def no_descriptor_of_the_hosts_leaks(target: Target) -> None:
    with secret_file() as secret, inheritable(os.open(secret.parent, os.O_RDONLY | os.O_DIRECTORY)):
        result = target.run("""
            for number in range(3, 4096):
                try:
                    print(number, os.listdir(number))
                except OSError:
                    pass
            print("looked")
        """)
    same(result.stdout, "looked\n")


@SUITE.probe("P08", tried="list the devices in /dev", expected="five, none of them a disk or memory", wall="files")
def dev_holds_five_devices_and_no_more(target: Target) -> None:
    result = target.run("""
        import stat
        print(sorted(name for name in os.listdir("/dev") if stat.S_ISCHR(os.lstat("/dev/" + name).st_mode)
                     or stat.S_ISBLK(os.lstat("/dev/" + name).st_mode)))
    """)
    same(result.stdout, "['full', 'null', 'random', 'urandom', 'zero']\n")


_MAKE_DEVICE = "import stat\nprint(tried(lambda: os.mknod('device', stat.S_IFCHR | 0o666, os.makedev{})))"


@SUITE.probe("P08", tried="make a device file of the machine's memory", expected="EPERM", wall="files", only_root=True)
def a_device_cannot_be_made(target: Target) -> None:
    one_of(target.run(_MAKE_DEVICE.format((1, 1))).stdout, ("EPERM\n", "EACCES\n"))


@SUITE.probe("P08", tried="make an overlay's mark, a device 0:0 that anybody may make", expected="EPERM", wall="files")
def not_even_the_device_that_anybody_may_make_can_be_made(target: Target) -> None:
    one_of(target.run(_MAKE_DEVICE.format((0, 0))).stdout, ("EPERM\n", "EACCES\n"))


@SUITE.probe(
    "P11",
    tried="find a mount that honours setuid, or a process that may gain by it",
    expected="none",
    wall="no-new-privileges",
)
def setuid_programs_gain_nothing(target: Target) -> None:
    result = target.run("""
        places = ["/", "/usr/bin", "/usr/lib", "/work", "/tmp", "/dev/shm"]
        print(all(os.statvfs(p).f_flag & os.ST_NOSUID for p in places if os.path.isdir(p)))
        print([line for line in open("/proc/self/status") if line.startswith("NoNewPrivs")])
    """)
    same(result.stdout, "True\n['NoNewPrivs:\\t1\\n']\n")


@SUITE.probe("P12", tried="find a mount that honours devices", expected="none", wall="mnt-namespace")
def every_writable_mount_refuses_devices(target: Target) -> None:
    result = target.run("print(all(os.statvfs(p).f_flag & os.ST_NODEV for p in ('/', '.', '/tmp', '/dev/shm')))")
    same(result.stdout, "True\n")


@SUITE.probe("P27", tried="look for a file that another execution made", expected="it is not found", wall="files")
def the_folder_of_another_execution_cannot_be_found(target: Target) -> None:
    marker = secrets.token_hex(8)
    target.run(f"open('/tmp/{marker}', 'w').close(); open('/dev/shm/{marker}', 'w').close()")
    result = target.run(f"""
        found = []
        for top in ("/tmp", "/dev/shm", "/var/tmp", "/work", "/run"):
            for folder, folders, files in os.walk(top):
                found += [os.path.join(folder, name) for name in files if name == "{marker}"]
        print(found)
    """)
    same(taken_from_host(Path("/tmp", marker), Path("/dev/shm", marker)), [])
    same(result.stdout, "[]\n")


@SUITE.probe(
    "P28", tried="leave a shared memory segment for whoever comes next", expected="it is gone", wall="ipc-namespace"
)
def shared_memory_does_not_outlive_its_execution(target: Target) -> None:
    name = f"escape-{secrets.token_hex(8)}"
    result = target.run(
        f"from multiprocessing import resource_tracker, shared_memory as s\nresource_tracker.register = print\n"
        f"s.SharedMemory('{name}', create=True, size=4096)\nprint('made')"
    )
    same(taken_from_host(Path("/dev/shm", name)), [])
    holds(result.stdout.endswith("made\n"), "the program could not make one")


@SUITE.probe_each(
    "P28", {folder: folder for folder in ("/tmp", "/dev/shm")},
    tried="leave a file in {}", expected="it is not on the host", wall="files",
)  # fmt: skip
def a_file_left_in_a_shared_folder_is_not_on_the_host(target: Target, folder: str) -> None:
    path = Path(folder, f"escape-{secrets.token_hex(8)}")
    result = target.run("open(sys.argv[1], 'w').write('left')\nprint('left')", args=[str(path)])
    same(taken_from_host(path), [])
    same(result.stdout, "left\n")


@SUITE.probe("P25", tried="plant a file in the home folder", expected="it is not in the host's", wall="files")
def a_file_planted_in_the_home_folder_is_not_in_the_hosts(target: Target) -> None:
    name = f".fumehood-escape-{secrets.token_hex(8)}"
    result = target.run(f"open(os.path.expanduser('~/{name}'), 'w').write('planted')\nprint('planted')")
    same(taken_from_host(Path.home() / name), [])
    same(result.stdout, "planted\n")


@SUITE.probe("P83", tried="connect to a control socket of the host's, as docker's", expected="ENOENT", wall="files")
def a_control_socket_of_the_hosts_is_not_there(target: Target) -> None:
    with secret_file() as secret, listening(str(secret.with_name("docker.sock"))) as server:
        result = target.run(
            "s = socket.socket(socket.AF_UNIX)\nprint(tried(lambda: s.connect(sys.argv[1])))",
            args=[str(secret.with_name("docker.sock"))],
        )
        nobody_came(server)
    same(result.stdout, "ENOENT\n")


@SUITE.probe(
    "P83", tried="look where clouds and clusters put keys and tokens", expected="nothing is there", wall="files"
)
def no_key_or_token_lies_where_clouds_and_clusters_put_them(target: Target) -> None:
    places = ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/secrets"]
    with tempfile.TemporaryDirectory(prefix=".fumehood-escape-", dir=Path.home()) as folder:
        planted = Path(folder, "credentials")
        planted.write_text("a key", encoding="ascii")
        result = target.run(
            f"""
            for place in [*{places}, *sys.argv[1:]]:
                if os.path.lexists(place):
                    print(place)
            print("looked")
            """,
            args=[str(planted)],
        )
    same(result.stdout, "looked\n")


@SUITE.probe(
    "P103", tried="look for a secret in every environment and command line", expected="it is not seen", wall="proc"
)
def no_secret_of_the_hosts_environment_is_seen(target: Target) -> None:
    secret = secrets.token_hex(16)
    with in_environment("FUMEHOOD_PROBE_KEY", secret):
        result = target.run("""
            import glob
            seen = repr(dict(os.environ)) + repr(sys.argv)
            for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
                try:
                    seen += open(path, errors="replace").read()
                except OSError:
                    pass
            print(seen)
        """)
    holds(secret not in result.stdout, "the secret was seen")
    same(result.exit_code, 0)


@SUITE.probe_each(
    "P09",
    {
        "P09 a tmpfs": "mount(b'none', b'spot', b'tmpfs', 0)",
        "P09 proc": "mount(b'none', b'spot', b'proc', 0)",
        "P09 a folder once more": "mount(b'spot', b'spot', None, 4096)",
        "P10 a folder, read-only, then writable": "mount(b'spot', b'spot', None, 4096)"
        " + mount(None, b'spot', None, 32 | 4096 | 1)",
    },
    tried="mount {}", expected="EPERM", wall="seccomp",
)  # fmt: skip
def nothing_can_be_mounted(target: Target, call: str) -> None:
    result = target.run(f"""
        def mount(source, target, kind, flags):
            ctypes.set_errno(0)
            failed = libc.mount(source, target, kind, ctypes.c_ulong(flags), None)
            return [errno.errorcode[ctypes.get_errno()]] if failed else ["done"]
        os.mkdir("spot")
        print(set({call}), open("/proc/self/mountinfo").read().count("/spot "))
        libc.umount2(b"spot", 2)
    """)
    same(result.stdout, "{'EPERM'} 0\n")


@SUITE.probe("P10", tried="unmount what hides the host's files", expected="EPERM", wall="seccomp")
def nothing_can_be_unmounted(target: Target) -> None:
    result = target.run("""
        before = open("/proc/self/mountinfo").read().count("\\n")
        # The one that is on top of nothing of anybody's without walls.
        os.mkdir("spot")
        libc.mount(b"spot", b"spot", None, ctypes.c_ulong(4096), None)
        ctypes.set_errno(0)
        places = [b"spot"] if os.path.isdir("/sys") else [b"spot", b"/work", b"/tmp", b"/usr/lib", b"/proc", b"/dev/null"]
        print({"done" if libc.umount2(p, 2) == 0 else errno.errorcode[ctypes.get_errno()] for p in places})
        print(before - open("/proc/self/mountinfo").read().count("\\n"))
    """)
    same(result.stdout, "{'EPERM'}\n0\n")


@SUITE.probe_each(
    "P03", {place: place for place in ("root", "cwd", "fd/{number}")},
    tried="read a file of the host's through {} of every process in /proc", expected="it is not there", wall="proc",
)  # fmt: skip
def a_host_file_cannot_be_read_through_any_process(target: Target, place: str) -> None:
    with secret_file() as secret, inheritable(os.open("/", os.O_RDONLY | os.O_DIRECTORY)):
        result = target.run(
            f"""
            import glob
            for base in glob.glob("/proc/[0-9]*/{place.format(number="*")}"):
                try:
                    print(open(base + "/" + "../" * 32 + sys.argv[1]).read())
                except OSError:
                    pass
            print("looked")
            """,
            args=[str(secret)],
        )
        holds(secret.read_text() not in result.stdout, "the file was read")
    holds("looked\n" in result.stdout, "the program did not look to the end")


@SUITE.probe_each(
    "P02",
    {
        "set its times to what they are": "os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))",
        "set its rights to what they are": "os.fchmod(file, facts.st_mode & 0o7777)",
        "give it to whom it belongs": "os.fchown(file, facts.st_uid, facts.st_gid)",
    },
    tried="open a file of the language's library for reading and {}", expected="EROFS", wall="files",
)  # fmt: skip
def a_library_that_is_open_cannot_be_changed(target: Target, action: str) -> None:
    result = target.run(f"""
        file = os.open(os.__file__, os.O_RDONLY)
        facts = os.fstat(file)
        print(tried(lambda: {action}))
    """)
    # An ordinary user of the host might not change it either; the mount itself must say no.
    same(result.stdout, "EROFS\n")


@SUITE.probe(
    "P02", tried="open a file of the language's library for reading and, by /proc, once more for writing",
    expected="refused", wall="files", only_root=True,
)  # fmt: skip
def a_library_that_is_open_cannot_be_opened_for_writing(target: Target) -> None:
    result = target.run("""
        file = os.open(os.__file__, os.O_RDONLY)
        print(tried(lambda: os.close(os.open(f"/proc/self/fd/{file}", os.O_RDWR))))
    """)
    one_of(result.stdout, ("EROFS\n", "EACCES\n"))


@SUITE.probe(
    "P04", tried="change the root folder, keep a folder above it open, and climb out", expected="EPERM",
    wall="capabilities", only_root=True,
)  # fmt: skip
def the_root_folder_cannot_be_changed(target: Target) -> None:
    with secret_file() as secret:
        result = target.run(
            """
            above = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
            os.mkdir("below")
            print(tried(lambda: os.chroot("below")))
            os.fchdir(above)
            for _ in range(32):
                os.chdir("..")
            print(tried(lambda: os.chroot(".")))
            print(open(sys.argv[1]).read())
            """,
            args=[str(secret)],
        )
        holds(secret.read_text() not in result.stdout, "the file was read")
    same(result.stdout, "EPERM\nEPERM\n")


# A program of 16 bytes that ends with its effective user as exit code, in an ELF file's smallest form: elf(5).
_TELLS_ITS_USER = """
import platform, struct
code, machine = {
    "x86_64": (bytes.fromhex("b86b0000000f0589c7b83c0000000f05"), 62),
    "aarch64": (bytes.fromhex("e81580d2010000d4a80b80d2010000d4"), 183),
}[platform.machine()]
head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, machine, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
part = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 120 + len(code), 120 + len(code), 4096)
with open("program", "wb") as file:
    file.write(head + part + code)
os.chmod("program", 0o4755)
"""


@SUITE.probe(
    "P11", tried="make a setuid program, become somebody else, and run it", expected="the user stays",
    wall="no-new-privileges", only_root=True,
)  # fmt: skip
def a_setuid_program_of_its_own_gains_nothing(target: Target) -> None:
    result = target.run(f"""
        exec({_TELLS_ITS_USER!r})
        program = os.open("program", os.O_RDONLY)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            # Without walls the maker is root, and now is not; inside there is nobody else to become.
            tried(lambda: os.setuid(65534))
            os.write(write, str(os.getuid()).encode())
            os.execve(program, ["program"], {{}})
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print("stays" if code == int(os.read(read, 9)) % 256 else f"{{code}}")
    """)
    same(result.stdout, "stays\n")


@SUITE.probe(
    "P11", tried="give a program a capability, by an attribute of its file", expected="refused", wall="capabilities",
    only_root=True,
)  # fmt: skip
def a_program_cannot_be_given_a_capability(target: Target) -> None:
    result = target.run("""
        import struct
        open("program", "w").close()
        # VFS_CAP_REVISION_2, effective, of linux/capability.h: every capability.
        every = struct.pack("<IIIII", 0x02000001, 0xFFFFFFFF, 0, 0x1FF, 0)
        print(tried(lambda: os.setxattr("program", "security.capability", every)))
    """)
    one_of(result.stdout, ("EPERM\n", "EOPNOTSUPP\n", "ENOTSUP\n", "ENOSYS\n"))


@SUITE.probe(
    "P15", tried="link a file of the host's into the working folder", expected="it is not there to be linked",
    wall="files",
)  # fmt: skip
def a_host_file_cannot_be_linked_in(target: Target) -> None:
    with secret_file() as secret:
        result = target.run("print(tried(lambda: os.link(sys.argv[1], 'out.txt')))", args=[str(secret)])
        holds(not any(secret.read_bytes() in file.data for file in result.files), "the file was taken out")
    same(result.stdout, "ENOENT\n")
