"""The host's handle on a zygote: has it started, and has it fork sandboxes.

Promised: a zygote that ends, however it ends, takes every sandbox forked from it along. Any thread may call.
"""

from __future__ import annotations

import _socket
import array
import marshal
import os
import select
import threading

from ..errors import SandboxFailed, ZygoteDied
from . import kernel
from .init import ENTERED, FAILED, MAPPED, READY
from .isolation.namespaces import USERS_OF_ONE, UserLease
from .live import WARM_KEEPERS, Live

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..protocol.limits import Limits
    from .launcher import Launcher
    from .spec import Spec

_BOOT_SECONDS = 60.0


class Kit:
    """What a zygote is made from: a runtime's `spec` without a program, the modules it loads, a sample to warm up with."""

    def __init__(self, spec: Spec, preload: tuple[str, ...], sample: str) -> None:
        self.spec, self.preload, self.sample = spec, preload, sample


class Zygote:
    """One warm interpreter. Made by the constructor, which waits until it can fork."""

    def __init__(self, kit: Kit, launcher: Launcher, *, cgroups: bool) -> None:
        self._lock = threading.Lock()
        self._cgroups = cgroups
        self._lease = UserLease(block=True)
        self._lease.__enter__()
        # The first of its ids is the zygote's own.
        self._users = list(range(1, USERS_OF_ONE))
        self._channel, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self._process = -1
        try:
            self._process = launcher.spawn_zygote(kit.spec, far, self._lease.user, kit.preload, kit.sample)
            far.close()
            #: Top-level names of what it has loaded: a program's own file of such a name would not be found by its programs.
            self.names = self._boot()
        except BaseException:
            far.close()
            self.close()
            raise

    def _boot(self) -> frozenset[str]:
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        if not poll.poll(_BOOT_SECONDS * 1000):
            raise SandboxFailed(f"a warm interpreter was not ready after {_BOOT_SECONDS:g} seconds")
        message = self._channel.recv(1 << 18)
        if message[:1] != READY:
            raise SandboxFailed(f"a warm interpreter could not be set up: {_said(message)}")
        # The zygote runs no guest code.
        return frozenset(name.partition(".")[0] for name in marshal.loads(message[1:]))  # noqa: S302

    def fork(self, limits: Limits, *, ahead: bool = False, channel: bool = False) -> Live:
        """Fork a sandbox, with a session's channel if asked; `wait_ready` says when it can take an order.

        `ahead`: nobody waits for it, so it runs the sample first. Raises `ZygoteDied` where this zygote is dead.
        """
        live = Live(limits, cgroup=self._cgroups, channel=channel, keepers=WARM_KEEPERS)
        try:
            with self._lock:
                if self._process < 0:
                    raise BrokenPipeError("closed")
                if not self._users:
                    raise SandboxFailed(
                        f"{USERS_OF_ONE - 1} sandboxes of one runtime live already: wait for one to end"
                    )
                live.user = self._users.pop()
                self._ask(live, limits, ahead=ahead)
            live.born()
            live.control.send(MAPPED)
            # With v1 this waits for a grace period of the kernel's; the walls go up meanwhile.
            live.enter_cgroup()
            live.control.send(ENTERED)
        except BaseException as error:
            self.release(live)
            if isinstance(error, OSError):
                # It or the sandbox was killed in between, or the host is short of something.
                raise ZygoteDied(f"no sandbox could be forked from the warm interpreter: {error}") from error
            raise
        return live

    def _ask(self, live: Live, limits: Limits, *, ahead: bool) -> None:
        user = None if self._lease.user is None else live.user
        request = marshal.dumps((user, limits.as_dict(), not live.entrances, ahead, live.channel is not None))
        passed = array.array("i", [*live.stdio, live.far.fileno()])
        self._channel.sendmsg([request], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, passed)])
        answer, ancillary, _flags, _address = self._channel.recvmsg(4096, 32)
        for _level, _kind, data in ancillary:
            live.maker = array.array("i", data[:4])[0]
            os.set_inheritable(live.maker, False)
        if not answer:
            raise BrokenPipeError("the warm interpreter ended")
        if live.maker < 0:
            raise SandboxFailed(f"a warm interpreter could not fork a sandbox: {_said(answer)}")

    def release(self, live: Live) -> None:
        """End a sandbox of this zygote, wait until it is dead, and give up what it had."""
        user = live.user
        live.kill()
        live.is_dead(_BOOT_SECONDS)
        live.close()
        if user >= 0:
            with self._lock:
                self._users.append(user)

    def is_dead(self) -> bool:
        """Whether it has ended."""
        with self._lock:
            return self._process < 0 or self._ends_within(0)

    def close(self) -> None:
        """End it and with it all of its sandboxes, and wait until it is dead."""
        with self._lock:
            self._channel.close()
            if self._process >= 0:
                kernel.send_signal(self._process, 9)
                self._ends_within(_BOOT_SECONDS)
                os.close(self._process)
                self._process = -1
        self._lease.__exit__()

    def abandon(self) -> None:
        """Close what is open and leave it to the process that this one was forked from."""
        self._channel.close()
        self._lease.__exit__()
        if self._process >= 0:
            os.close(self._process)
            self._process = -1

    def _ends_within(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._process, select.POLLIN)
        return bool(poll.poll(seconds * 1000))


def _said(message: bytes) -> str:
    if not message:
        return "it ended without a word"
    return message.removeprefix(FAILED).decode("utf-8", "replace")
