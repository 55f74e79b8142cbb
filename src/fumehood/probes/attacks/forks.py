"""Attacks by a session that is forked: on its copies, on what it was forked from, and on whoever forks it."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ForkRefused, InvalidRequest, RuntimeUnavailable
from ...protocol.limits import MiB
from ...runtimes import packages
from ..host_side import alive, end, listening, nobody_came, nothing_stays, secret_file, taken_from_host
from ..suite import Fell, LeftOut, Suite, holds, same
from ..target import LIMITS, Target
from .sessions import reaching, said, seen_alive

if TYPE_CHECKING:
    from collections.abc import Iterator

SUITE = Suite("forks")

_LIMITS = LIMITS.replace(wall_seconds=5, cpu_seconds=60)
_FOLDERS = ("/tmp", "/dev/shm")


@contextlib.contextmanager
def forked(session: Any, count: int = 1) -> Iterator[list[Any]]:
    """Yield a session and its copies, which are closed at the end."""
    copies = session.fork(count)
    try:
        yield [session, *copies]
    finally:
        for each in copies:
            each.close()


def daemon(marker: str, seconds: float = 6) -> str:
    """Return a cell that starts a process with a marker, which goes on by itself."""
    return (
        "import subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep({seconds})', '{marker}'], start_new_session=True,\n"
        "  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
    )


_DRAWS = {
    "random": "import random\ndraw = random.random",
    "a generator of its own": "import random\nown = random.Random(7)\ndraw = own.random",
    "one in a list": "import random\nkept = [random.Random(7)]\ndraw = kept[0].random",
    "one of its own kind": "import random\nclass Mine(random.Random): pass\nkept = {'deep': [Mine(7)]}\ndraw = kept['deep'][0].random",
    "one in a closure": "import random\ndef made(own=random.Random(7)): return lambda: own.random()\ndraw = made()",
    "one in a class with slots": "import random\nclass Slots:\n  __slots__ = ('own',)\nkept = Slots()\nkept.own = random.Random(7)\n"
    "draw = lambda: kept.own.random()",
    "shuffles and choices": "import random\ndraw = lambda: random.sample(range(10**6), 3)",
    "a generator that was begun": "import random\ndef numbers():\n  own = random.Random(7)\n  while True: yield own.random()\n"
    "kept = numbers(); next(kept)\ndraw = lambda: next(kept)",
}  # fmt: skip


@SUITE.probe_each(
    "P111", _DRAWS, tried="draw the same in two copies, by {}", expected="each draws something else", wall="forks"
)
def copies_draw_anew(target: Target, setup: str) -> None:
    with target.session(limits=_LIMITS) as session:
        session.run(f"{setup}\ndraw()")
        with forked(session, 2) as every:
            drawn = [said(each, "print(draw())") for each in every]
    same(len(set(drawn) - {""}), 3)


@SUITE.probe(
    "P111",
    tried="draw the same in two copies, by numpy's generators",
    expected="each draws something else",
    wall="forks",
)
def copies_draw_anew_with_numpy(target: Target) -> None:
    # numpy is in no interpreter without walls that we know of: there random stands for it.
    if not os.path.exists(os.path.join(packages.folder(), packages.revision("python-data"))):
        raise LeftOut("python-data is not built here: `fumehood run -l python-data -c 1` does that")
    language = "python-data" if target.walled else "python"
    setup = (
        "import numpy.random as all\nown = all.default_rng(1)"
        if target.walled
        else "import random as all\nown = all.Random(1)"
    )
    try:
        with target.session(language, limits=_LIMITS.replace(memory_bytes=1024 * MiB, wall_seconds=20)) as session:
            session.run(f"{setup}\nall.seed(1)", timeout=20)
            with forked(session, 2) as every:
                drawn = [said(each, "print(all.random(), own.random())") for each in every]
    except RuntimeUnavailable as error:
        raise LeftOut(str(error)) from error
    same(len({each for pair in drawn for each in pair.split()}), 6)


_SAME_NAMES = """
import os, secrets, ssl, tempfile, uuid
def names():
    return [os.urandom(8).hex(), secrets.token_hex(8), str(uuid.uuid1()), str(uuid.uuid4()), ssl.RAND_bytes(8).hex(),
            str(os.getpid()), os.path.basename(tempfile.mktemp())]
names()
"""


@SUITE.probe(
    "P111",
    tried="have two copies make the same tokens, UUIDs, names of files, or have the same pid; see each other's /tmp by them",
    expected="all differ, and nothing is seen",
    wall="forks",
)
def copies_make_other_names(target: Target) -> None:
    with target.session(limits=_LIMITS) as session:
        session.run(_SAME_NAMES)
        with forked(session, 2) as every:
            made = [said(each, "for each in names(): print(each)").split() for each in every]
            same([len(each) for each in made], [7] * 3)
            same([len(set(kind)) for kind in zip(*made, strict=True)], [3] * 7)
            name = secrets.token_hex(8)
            every[1].run(f"open('/tmp/{name}', 'w').close()")
            seen = said(every[2], f"print(os.path.exists('/tmp/{name}'))")
            taken_from_host(Path("/tmp", name))
    same(seen, "False\n")


@SUITE.probe(
    "P111",
    tried="write variables, files and open files in one copy, and read them in the others",
    expected="nothing of it is seen",
    wall="forks",
)
def copies_do_not_see_what_others_write(target: Target) -> None:
    marker = secrets.token_hex(8)
    try:
        with target.session(limits=_LIMITS) as session:
            session.run(
                f"import os\nkept = ['before']\nplaces = [os.path.join(place, '{marker}') for place in ('.', *{_FOLDERS})]\n"
                "for place in places: open(place, 'w').write('before')\nopened = [open(place, 'r+') for place in places]"
            )
            with forked(session, 2) as every:
                every[1].run(
                    "kept[0] = 'mine'\nfor each in opened: each.write('mine!!'); each.flush()\n"
                    "for place in places: open(place + 'new', 'w').close()"
                )
                look = "print(kept, [open(place).read() for place in places], [each.tell() for each in opened],\n"
                look += "  [os.path.exists(place + 'new') for place in places])"
                seen = [said(each, look) for each in (every[0], every[2])]
    finally:
        taken_from_host(*(Path(place, marker + end) for place in _FOLDERS for end in ("", "new")))
    wanted = f"['before'] {['before'] * 3} {[0] * 3} {[False] * 3}\n"
    same(seen, [wanted] * 2)


@SUITE.probe(
    "P111",
    tried="keep sockets and pipes, threads and children through a fork",
    expected="they are gone, and told of",
    wall="forks",
)
def what_is_not_taken_along_is_told(target: Target) -> None:
    with target.session(limits=_LIMITS) as session:
        session.run(
            "import os, socket, subprocess, threading, time\npair = socket.socketpair(); ends = os.pipe()\n"
            "threading.Thread(target=time.sleep, args=(5,), name='ticker', daemon=True).start()\n"
            "child = subprocess.Popen(['sleep', '5'])"
        )
        with forked(session) as every:
            for each in every:
                lost = ", ".join(each.lost)
                for what in ("thread ticker", "1 other process", "2 socket", "2 pipe"):
                    holds(what in lost, f"{what} is not told: {lost}")
                same(
                    said(
                        each,
                        "def works(action):\n  try: action()\n  except OSError: return False\n  return True\n"
                        "print(works(lambda: pair[0].send(b'x')), works(lambda: os.write(ends[1], b'x')), threading.active_count())",
                    ),
                    "False False 1\n",
                )


@SUITE.probe(
    "P35",
    tried="see and kill a process of another copy's, by its number on the host and by looking",
    expected="it is not seen, and lives",
    wall="pid-namespace",
)
def copies_cannot_kill_one_another(target: Target) -> None:
    marker = secrets.token_hex(8)
    with target.session(limits=_LIMITS) as session, forked(session, 2) as every:
        every[1].run(daemon(marker))
        pids = seen_alive(marker)
        found = said(every[2], _LOOK.format(marker=marker, pids=pids))
        found += said(every[0], _LOOK.format(marker=marker, pids=[]))
        time.sleep(0.05)
        left = alive(marker)
        end(left)
    same((found, left), ("[]\n[]\n", pids))


_LOOK = """
import glob, os
found = []
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        if b"{marker}" in open(path, "rb").read():
            found.append(path)
    except OSError:
        pass
for pid in {pids}:
    try:
        os.kill(pid, 9)
        found.append(pid)
    except OSError:
        pass
print(found)
"""


# What a session may hold open that shows processes, and how a copy looks through it.
_WINDOWS = {
    "an open /proc": ("os.open('/proc', os.O_RDONLY)", "os.dup(kept)"),
    "a path to /proc": ("os.open('/proc', os.O_PATH)", "os.open('.', os.O_RDONLY, dir_fd=kept)"),
    "an open folder of its own process": (
        "os.open('/proc/self', os.O_RDONLY)",
        "os.open('..', os.O_RDONLY, dir_fd=kept)",
    ),
    "the folder of process 1": ("os.open('/proc/1', os.O_PATH)", "os.open('..', os.O_RDONLY, dir_fd=kept)"),
    "the folder it works in": ("os.chdir('/proc')", "os.open('.', os.O_RDONLY)"),
    "a folder of threads that it works in": ("os.chdir('/proc/self/task')", "os.open('../..', os.O_RDONLY)"),
    "the root": ("os.open('/', os.O_PATH)", "os.open('proc', os.O_RDONLY, dir_fd=kept)"),
    "the root of its own": ("os.open('/proc/self/root', os.O_PATH)", "os.open('proc', os.O_RDONLY, dir_fd=kept)"),
}


# A copy's own numbers are drawn from the same range: what counts is whether they lead to that process.
_LOOK_THROUGH = """
import os
found = []
try:
    folder = {folder}
    for name in filter(str.isdigit, os.listdir(folder)):
        try:
            if b"{marker}" in os.read(os.open(name + "/cmdline", os.O_RDONLY, dir_fd=folder), 9999):
                found.append(name)
        except OSError:
            pass
except OSError:
    pass
print(found)
"""


@SUITE.probe_each(
    "P111", _WINDOWS,
    tried="see a process of another copy's through what was open before the fork: {}",
    expected="it is not seen, or the fork is refused and the session goes on", wall="forks",
)  # fmt: skip
def no_window_into_another_copy_stays(target: Target, opening: str, folder: str) -> None:
    marker = secrets.token_hex(8)
    with target.session(limits=_LIMITS) as session:
        session.run(f"import os\nkept = -1\ntry: kept = {opening}\nexcept OSError: pass")
        with contextlib.suppress(ForkRefused), forked(session, 2) as every:
            every[1].run(daemon(marker))
            seen_alive(marker)
            seen = [said(each, _LOOK_THROUGH.format(folder=folder, marker=marker)) for each in (every[0], every[2])]
            end(alive(marker))
            same(seen, ["[]\n"] * 2)
        same(said(session, "print(40 + 2)"), "42\n")


@SUITE.probe(
    "P111",
    tried="kill what was there before the fork, by a pidfd of process 1, of itself and of a child",
    expected="all copies live",
    wall="forks",
)
def a_pidfd_reaches_no_other_copy(target: Target) -> None:
    marker = secrets.token_hex(8)
    with target.session(limits=_LIMITS) as session:
        # Without walls process 1 is somebody's: then it is left out.
        ours = "[1, os.getpid()]" if target.walled else "[]"
        session.run(
            f"import os, signal\n{daemon(marker)}\nkept = []\nfor pid in {ours}:\n  try: kept.append(os.pidfd_open(pid))\n  except OSError: pass"
        )
        pids = seen_alive(marker)
        session.run(f"for pid in {pids}:\n  try: kept.append(os.pidfd_open(pid))\n  except OSError: pass")
        with forked(session, 2) as every:
            every[1].run("for each in kept:\n  try: signal.pidfd_send_signal(each, 9)\n  except OSError: pass")
            seen = [said(each, "print(40 + 2)") for each in (every[0], every[2])]
            left = alive(marker)
            end(left)
        same(seen, ["42\n"] * 2)
        # A child is not taken along; one that lives on without walls is not killed by this copy alone.
        same(left, [])
        holds("1 other process" in ", ".join(session.lost), "the child was not told of")


@SUITE.probe(
    "P113",
    tried="crash in one copy, and use up memory in another",
    expected="typed deaths; the others live",
    wall="forks",
)
def a_copy_dies_alone(target: Target) -> None:
    with target.session(limits=_LIMITS) as session:
        session.run("import ctypes, time\nkept = 40")
        with forked(session, 3) as every:
            every[1].run("ctypes.string_at(0)")
            every[2].run("hog = []\nfor _ in range(50): hog.append(b'x' * (4 << 20)); time.sleep(0.005)")
            same([said(each, "print(kept + 2)") for each in (every[0], every[3])], ["42\n"] * 2)
            reasons = [each.death.reason if each.death else "lives" for each in every]
    same(reasons, ["lives", "crashed", "out_of_memory", "lives"])


@SUITE.probe(
    "P29",
    tried="fill the disk, files and processes of a copy",
    expected="ENOSPC and EAGAIN at the limits of its own",
    wall="disk",
)
def a_copy_has_limits_of_its_own(target: Target) -> None:
    with target.session(limits=_LIMITS) as session:
        session.run("import errno, os, time")
        with forked(session) as every:
            filled = said(
                every[1],
                "try:\n  for n in range(3): open('big%d' % n, 'wb', 0).write(bytes(8 << 20))\n  open('big3', 'wb', 0).write(b'x')\n"
                "except OSError as error: print(errno.errorcode[error.errno])\n"
                "for n in range(4): os.path.exists('big%d' % n) and os.unlink('big%d' % n)\n"
                "try:\n  for n in range(1500): open('f%d' % n, 'w').close()\nexcept OSError as error: print(errno.errorcode[error.errno])",
            )
            filled += said(
                every[1],
                "children = []\ntry:\n  for _ in range(60):\n    child = os.fork()\n    if child == 0: time.sleep(2); os._exit(0)\n"
                "    children.append(child)\nexcept OSError as error: print(errno.errorcode[error.errno])\n"
                "for child in children: os.kill(child, 9); os.waitpid(child, 0)",
            )
            # The other has all of its own still.
            here = said(every[0], "with open('big', 'wb') as f: print(f.write(bytes(8 << 20)))")
    same((filled, here), ("ENOSPC\nENOSPC\nEAGAIN\n", f"{8 << 20}\n"))


@SUITE.probe(
    "P85", tried="read a file of the host's and reach a port of it from a copy", expected="neither", wall="network"
)
def a_copy_has_the_walls_too(target: Target) -> None:
    with secret_file() as secret, listening() as server, target.session(limits=_LIMITS) as session:
        session.run("import os")
        with forked(session) as every, forked(every[1]) as deeper:
            for each in (*every, deeper[1]):
                same(said(each, reaching(secret, server.getsockname()[1])), "")
        nobody_came(server)


@SUITE.probe(
    "P65",
    tried="from a copy: new namespaces, mounts, a setuid, and reading back its walls",
    expected="refused; no capability, no new privilege, a filter",
    wall="seccomp",
)
def a_copy_has_no_privilege(target: Target) -> None:
    with target.session(limits=_LIMITS) as session:
        session.run("import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)")
        with forked(session) as every:
            for each in every:
                shown = said(
                    each,
                    "facts = dict(line.split(':\\t') for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)\n"
                    "print([facts[name] for name in ('CapEff', 'CapPrm', 'CapBnd', 'NoNewPrivs', 'Seccomp')])\n"
                    "print([libc.unshare(flag) for flag in (0x10000000, 0x20000, 0x40000000)], os.access('/etc', os.W_OK))",
                )
                same(shown, f"{['0' * 16] * 3 + ['1', '2']}\n[-1, -1, -1] False\n".replace("'] + ['", "', '"))


@SUITE.probe(
    "P31", tried="ask for 0, -1 and 1001 copies at once", expected="InvalidRequest; the session goes on", wall="forks"
)
def a_flood_of_copies_is_refused(target: Target) -> None:
    with target.session(limits=_LIMITS) as session:
        for count in (0, -1, 1001):
            try:
                made = session.fork(count)
            except InvalidRequest:
                continue
            raise Fell(f"{len(made)} copies were made where {count} were asked for")
        same(said(session, "print(40 + 2)"), "42\n")


@SUITE.probe(
    "P31",
    tried="fork the copy of a copy, again and again",
    expected="refused in the end; the last goes on",
    wall="forks",
)
def forks_of_forks_end(target: Target) -> None:
    with target.session(limits=_LIMITS) as session:
        for _ in range(40):
            try:
                session.fork()[0].close()
            except ForkRefused:
                same(said(session, "print(40 + 2)"), "42\n")
                return
    raise Fell("40 were made of one another")


@SUITE.probe(
    "P111",
    tried="write secrets after a checkpoint: a variable, files, a memory file, a daemon; look for them after a restore",
    expected="nothing of it is there",
    wall="forks",
)
def a_restore_takes_back_all_that_came_after(target: Target) -> None:
    marker = secrets.token_hex(8)
    try:
        with nothing_stays(), Target(target.way) as own, own.session(limits=_LIMITS) as session:
            session.run(f"import os\nplaces = [os.path.join(place, '{marker}') for place in ('.', *{_FOLDERS})]")
            checkpoints: Any = session
            with checkpoints.checkpoint() as checkpoint:
                session.run(f"after = '{marker}'\nfor place in places: open(place, 'w').close()\n{daemon(marker)}")
                seen_alive(marker)
                checkpoints.restore(checkpoint)
            left = alive(marker)
            end(left)
            seen = said(session, "print('after' in globals(), [os.path.exists(place) for place in places])")
    finally:
        taken_from_host(*(Path(place, marker) for place in _FOLDERS))
    same((seen, left), (f"False {[False] * 3}\n", []))


@SUITE.probe(
    "P33",
    tried="leave daemons in each of 8 copies, and in copies of theirs",
    expected="none is left after they are closed",
    wall="leftovers",
)
def nothing_is_left_of_copies(target: Target) -> None:
    marker = secrets.token_hex(8)
    with nothing_stays(), Target(target.way) as own, own.session(limits=_LIMITS) as session:
        session.run("kept = 1")
        with forked(session, 8) as every:
            for each in every:
                each.run(daemon(marker))
            with forked(every[1]) as deeper:
                deeper[1].run(daemon(marker))
                seen_alive(marker)
        session.close()
        left = alive(marker)
        end(left)
    same(left, [])
