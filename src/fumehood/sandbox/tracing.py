"""Has a stopped process make system calls, one at a time or the same many times, by ptrace.

Promised: between two calls the process executes nothing; it runs one instruction, the kernel's entry, at an address whose
bytes were looked at while it was stopped, or a loop of ours around it that stands there for that time. A call that its
seccomp filter leaves to a tracer passes, and only then. Not promised: anything about memory of the process: it is the
guest's, and what is read from it is hostile.
"""

from __future__ import annotations

import ctypes
import os
import struct

from . import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

# From include/uapi/linux/ptrace.h
_POKEDATA, _CONT, _SINGLESTEP, _DETACH = 5, 7, 9, 17
_SETOPTIONS, _GETEVENTMSG, _GETREGSET, _SETREGSET, _SEIZE, _INTERRUPT = (
    0x4200, 0x4201, 0x4204, 0x4205, 0x4206, 0x4207,
)  # fmt: skip
_GET_RSEQ_CONFIGURATION = 0x420F
_EVENT_SECCOMP, _EVENT_STOP = 7, 128
_BIRTHS = (1, 2, 3)  # PTRACE_EVENT_FORK, _VFORK, _CLONE
# PTRACE_O_TRACEFORK, _VFORK, _CLONE, _SECCOMP and _EXITKILL: should this process die, so does what it holds.
_OPTIONS = 2 | 4 | 8 | 0x80 | 0x100000
_NT_PRSTATUS = 1
_WALL = 0x40000000
_SIGTRAP = 5
_SCRATCH_BELOW_STACK = 16 << 10

_libc = ctypes.PyDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
for _name in ("process_vm_writev", "process_vm_readv"):
    _call = getattr(_libc, _name)
    _call.restype = ctypes.c_ssize_t
    _call.argtypes = (ctypes.c_long, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)


class _Registers:
    """How a processor's registers carry system calls: each name is a place among them. Here x86-64, as struct user_regs_struct."""

    count = 27
    arguments: tuple[int, ...] = (14, 13, 12, 7, 9, 8)  # rdi, rsi, rdx, r10, r8, r9
    result, number, stack, at = 10, 15, 19, 16  # rax, orig_rax, rsp, rip
    instruction = b"\x0f\x05"
    #: The number of the call in which the C library's `pause` waits.
    pause = 34
    #: Makes a call again and again, its second argument from 0 up to below the sixth, until one fails; ends in a trap.
    loop = bytes.fromhex(
        "31f6"  # xor esi, esi
        "89d8"  # next: mov eax, ebx
        "0f05"  # syscall
        "85c0"  # test eax, eax
        "7507"  # jnz end
        "ffc6"  # inc esi
        "4439ce"  # cmp esi, r9d
        "72f1"  # jb next
        "cc"  # end: int3
    )
    #: Where the loop has the number of its call: rbx.
    loop_number = 5

    def entry(self, registers: list[int]) -> int:
        """Return where the instruction lies that led into the kernel."""
        return registers[self.at] - len(self.instruction)

    def set_call(self, registers: list[int], number: int, entry: int) -> None:
        registers[self.result], registers[self.number], registers[self.at] = number, _NONE, entry

    def set_return(self, registers: list[int], value: int) -> None:
        registers[self.result], registers[self.number] = value & _NONE, _NONE


class _Arm64(_Registers):
    """As struct user_pt_regs. Not exercised: no such machine was at hand."""

    count = 34
    arguments = (0, 1, 2, 3, 4, 5)
    result, number, stack, at = 0, 8, 31, 32
    instruction = b"\x01\x00\x00\xd4"
    pause = 73  # ppoll
    loop = bytes.fromhex(
        "f40300aa"  # mov x20, x0
        "f3031faa"  # mov x19, xzr
        "e00314aa"  # next: mov x0, x20
        "e10313aa"  # mov x1, x19
        "010000d4"  # svc #0
        "800000b5"  # cbnz x0, end
        "73060091"  # add x19, x19, #1
        "7f0205eb"  # cmp x19, x5
        "43ffff54"  # b.lo next
        "000020d4"  # end: brk #0
    )
    loop_number = 8

    def entry(self, registers: list[int]) -> int:
        # The kernel has set the program counter back already, to restart the call.
        return registers[self.at]

    def set_call(self, registers: list[int], number: int, entry: int) -> None:
        registers[self.number], registers[self.at] = number, entry

    def set_return(self, registers: list[int], value: int) -> None:
        registers[self.result] = value & _NONE
        registers[self.at] += len(self.instruction)


_NONE = (1 << 64) - 1
_MACHINE = _Arm64() if kernel.MACHINE == "aarch64" else _Registers()
# By these every tracee's registers come and go: one place for all, since one thread traces.
_REGISTERS = (ctypes.c_uint64 * _MACHINE.count)()
_REGISTERS_AT = (ctypes.c_uint64 * 2)(ctypes.addressof(_REGISTERS), ctypes.sizeof(_REGISTERS))


def is_paused(pid: int) -> bool:
    """Whether a process waits in `pause`. Raises OSError where it has ended."""
    with open(f"/proc/{pid}/syscall", encoding="ascii") as file:
        return file.read().split()[0] == str(_MACHINE.pause)


def pause() -> None:
    """Wait in `pause`, for a signal."""
    _libc.pause()


class Tracee:
    """A process of the guest's, held still."""

    def __init__(self, pid: int, registers: list[int] | None = None) -> None:
        self.pid = pid
        #: As it was found, or as whoever forked it was.
        self.registers = registers or []
        #: Where the instruction lies by which it enters the kernel.
        self.entry = _MACHINE.entry(registers) if registers else 0

    @classmethod
    def seize(cls, pid: int, *, paused: bool = True) -> Self:
        """Take hold of a process that waits in `pause`, or in any system call. Raises OSError where it does not."""
        self = cls(pid)
        _ptrace(_SEIZE, pid, 0, _OPTIONS)
        _ptrace(_INTERRUPT, pid)
        # A signal may come first: it is passed on, and whatever it does is looked at anew.
        while (number := self._stop()[1]) not in (0, _SIGTRAP):
            _ptrace(_CONT, pid, 0, number)
        try:
            self.registers = self._get()
            self.entry = _MACHINE.entry(self.registers)
            is_there = self.registers[_MACHINE.number] == _MACHINE.pause if paused else True
            if not is_there or self.read(self.entry, len(_MACHINE.instruction)) != _MACHINE.instruction:
                raise OSError("the process does not wait where it was asked to")
        except OSError:
            _ptrace(_DETACH, pid)
            raise
        return self

    @property
    def scratch(self) -> int:
        """An address below its stack, for what calls point to."""
        return (self.registers[_MACHINE.stack] - _SCRATCH_BELOW_STACK) & ~0xFFF

    def call(self, number: int, *arguments: int) -> int:
        """Have it make one system call; return the result. Raises OSError with the kernel's errno."""
        result = self._call(number, arguments)[0]
        return _checked(number, result)

    def call_for_each(self, number: int, first: int, count: int) -> None:
        """Have it make a call with `first` and each number below `count` as arguments, up to the first that fails."""
        kept = self.read(self.entry, -len(_MACHINE.loop) // 8 * -8)
        registers = list(self.registers)
        for place, value in zip(_MACHINE.arguments, (first, 0, 0, 0, 0, count), strict=True):
            registers[place] = value
        _MACHINE.set_call(registers, number, self.entry)
        registers[_MACHINE.loop_number] = number
        try:
            self._poke(_MACHINE.loop + kept[len(_MACHINE.loop) :])
            self._set(registers)
            _ptrace(_CONT, self.pid)
            if self._wait():
                raise OSError("the process did something else")
        finally:
            self._poke(kept)

    def _poke(self, code: bytes) -> None:
        # Where it cannot write itself.
        for offset, (word,) in enumerate(struct.iter_unpack("=Q", code)):
            _ptrace(_POKEDATA, self.pid, self.entry + 8 * offset, word)

    def birth(self, number: int, *arguments: int) -> Tracee:
        """Have it make a call that forks; return the child, held still where it was born."""
        result, child = self._call(number, arguments)
        _checked(number, result)
        if not child:
            raise OSError("the process forked nobody")
        born = Tracee(child, self.registers)
        born._wait()
        return born

    def write(self, data: bytes, offset: int = 0) -> int:
        """Write to its scratch memory; return the address."""
        address = self.scratch + offset
        self._transfer(_libc.process_vm_writev, address, ctypes.create_string_buffer(data, len(data)), len(data))
        return address

    def read(self, address: int, size: int) -> bytes:
        """Read its memory."""
        buffer = ctypes.create_string_buffer(size)
        self._transfer(_libc.process_vm_readv, address, buffer, size)
        return buffer.raw

    def restartable_sequence(self) -> tuple[int, int, int] | None:
        """Return (address, size, signature) of what it registered with rseq(2), None where it did not."""
        # struct ptrace_rseq_configuration
        data = ctypes.create_string_buffer(24)
        _ptrace(_GET_RSEQ_CONFIGURATION, self.pid, len(data), ctypes.addressof(data))
        address, size, signature = struct.unpack_from("=QII", data)
        return (address, size, signature) if address else None

    def let_go(self, value: int | None = None) -> None:
        """Let it run on: out of `pause` with this value, or without one back into it."""
        registers = list(self.registers)
        if value is None:
            # As a call that begins anew, at the instruction itself.
            _MACHINE.set_call(registers, _MACHINE.pause, self.entry)
        else:
            _MACHINE.set_return(registers, value)
        self._set(registers)
        _ptrace(_DETACH, self.pid)

    def _call(self, number: int, arguments: tuple[int, ...]) -> tuple[int, int]:
        registers = list(self.registers)
        for place, value in zip(_MACHINE.arguments, (*arguments, 0, 0, 0, 0, 0, 0), strict=False):
            registers[place] = value & _NONE
        _MACHINE.set_call(registers, number, self.entry)
        self._set(registers)
        child = 0
        while True:
            _ptrace(_SINGLESTEP, self.pid)
            event = self._wait()
            if event in _BIRTHS:
                message = ctypes.c_ulong()
                _ptrace(_GETEVENTMSG, self.pid, 0, ctypes.addressof(message))
                child = message.value
            elif event == 0:
                break
            # Else it has come to its filter, which asks us: this very call is ours.
        return self._get()[_MACHINE.result], child

    def _wait(self) -> int:
        """Wait until it stops; return the event, 0 for the end of a step."""
        event, number = self._stop()
        if not event and number != _SIGTRAP:
            raise OSError(f"the process was sent signal {number}")
        return event

    def _stop(self) -> tuple[int, int]:
        """Wait until it stops; return the event, 0 where there is none, and the signal that it stopped for, 0 for an event's."""
        _pid, status = os.waitpid(self.pid, _WALL)
        if not os.WIFSTOPPED(status):
            raise OSError("the process was killed")
        event = status >> 16
        return event, 0 if event else os.WSTOPSIG(status)

    def _get(self) -> list[int]:
        _ptrace(_GETREGSET, self.pid, _NT_PRSTATUS, ctypes.addressof(_REGISTERS_AT))
        return list(_REGISTERS)

    def _set(self, registers: list[int]) -> None:
        _REGISTERS[:] = registers  # type: ignore[assignment]  # ctypes takes numbers for its own integers
        _ptrace(_SETREGSET, self.pid, _NT_PRSTATUS, ctypes.addressof(_REGISTERS_AT))

    def _transfer(
        self, function: ctypes._FuncPointer, address: int, buffer: ctypes.Array[ctypes.c_char], size: int
    ) -> None:
        mine = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), size)
        theirs = (ctypes.c_uint64 * 2)(address, size)
        if function(self.pid, ctypes.addressof(mine), 1, ctypes.addressof(theirs), 1, 0) != size:
            raise OSError(ctypes.get_errno(), "the memory of the process cannot be reached")


def _checked(number: int, result: int) -> int:
    signed = result - (1 << 64) if result >> 63 else result
    if -4096 < signed < 0:
        raise OSError(-signed, f"system call {number} in the process: {os.strerror(-signed)}")
    return signed


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"ptrace {request}: {os.strerror(errno)}")
