"""Process 1 of a warm sandbox: a program without an interpreter, memory of its own alone, and no word from anyone.

It is given a pipe as descriptor 0, the control socket as 1, and CAP_SYS_ADMIN in the sandbox's own user namespace. It

1. mounts `/proc`, as only a process of the new process namespace can, and gives up the capability, the last that it has;
2. asks to be killed with its maker, and writes the mount's error number to the pipe (it leaves where nobody reads);
3. waits for children; where it has none, for SIGCHLD, which it is born with blocked. The first that comes is the host's, once
   the program can have its order: from then on it is not tied to its maker;
4. once process 3, the program, has ended, kills and reaps all others where there are any, and sends `E`, the wait status and what
   `getrusage(RUSAGE_CHILDREN)` says in one message: `init.REPORT`. It sleeps for 5 ms then, so that whoever waits for that has the
   processor first, and ends; the kernel kills whatever there is.

Other signals from inside do not reach a process 1 that has no handlers. It reads nothing, and nobody may look into it: its file
cannot be read, so it is not dumpable, and the guest is in a Landlock domain that it is not in. An interpreter in its place would
cost a sandbox 670 page faults (docs/decisions/0011-one-fork.md).

The instructions are written out with their bytes, so that no compiler is needed; a test holds them against `objdump`.
"""

from __future__ import annotations

import struct

from .tree import PROC_OPTIONS

#: The program's number inside: 1 is this process, 2 made the program and is gone.
PROGRAM = 3

_CODE = {
    "x86_64": """
4881ecc0000000           _start:  sub rsp, 192
488d3550010000                    lea rsi, [rip+data]
488d7e01                          lea rdi, [rsi+1]
4889fa                            mov rdx, rdi
41ba0e000000                      mov r10d, 14
4c8d4628                          lea r8, [rsi+40]
b8a5000000                        mov eax, 165  ; mount
0f05                              syscall
f7d8                              neg eax
880424                            mov [rsp], al
488d3d34010000                    lea rdi, [rip+data+8]
488d3535010000                    lea rsi, [rip+data+16]
b87e000000                        mov eax, 126  ; capset
0f05                              syscall
bf01000000                        mov edi, 1
be09000000                        mov esi, 9
b89d000000                        mov eax, 157  ; prctl
0f05                              syscall
31ff                              xor edi, edi
4889e6                            mov rsi, rsp
ba01000000                        mov edx, 1
b801000000                        mov eax, 1  ; write
0f05                              syscall
83f801                            cmp eax, 1
0f85ea000000                      jne leave
c644240745                        mov [rsp+7], 0x45
48c78424a000000000000100          mov [rsp+160], 0x10000
48c7c7ffffffff           reap:    mov rdi, -1
488d742408                        lea rsi, [rsp+8]
31d2                              xor edx, edx
4531d2                            xor r10d, r10d
b83d000000                        mov eax, 61  ; wait4
0f05                              syscall
83f803                            cmp eax, 3
742d                              je report
85c0                              test eax, eax
7fdf                              jg reap
488dbc24a0000000                  lea rdi, [rsp+160]
31f6                              xor esi, esi
31d2                              xor edx, edx
41ba08000000                      mov r10d, 8
b880000000                        mov eax, 128  ; rt_sigtimedwait
0f05                              syscall
bf01000000                        mov edi, 1
31f6                              xor esi, esi
b89d000000                        mov eax, 157  ; prctl
0f05                              syscall
ebb6                              jmp reap
48c7c7ffffffff           report:  mov rdi, -1
31f6                              xor esi, esi
ba01000000                        mov edx, 1
4531d2                            xor r10d, r10d
b83d000000                        mov eax, 61  ; wait4
0f05                              syscall
85c0                              test eax, eax
7fe4                              jg report
782c                              js told
48c7c7ffffffff                    mov rdi, -1
be09000000                        mov esi, 9
b83e000000                        mov eax, 62  ; kill
0f05                              syscall
48c7c7ffffffff           rest:    mov rdi, -1
31f6                              xor esi, esi
31d2                              xor edx, edx
4531d2                            xor r10d, r10d
b83d000000                        mov eax, 61  ; wait4
0f05                              syscall
85c0                              test eax, eax
7fe7                              jg rest
48c7c7ffffffff           told:    mov rdi, -1
488d74240c                        lea rsi, [rsp+12]
b862000000                        mov eax, 98  ; getrusage
0f05                              syscall
bf01000000                        mov edi, 1
488d742407                        lea rsi, [rsp+7]
ba95000000                        mov edx, 149
b801000000                        mov eax, 1  ; write
0f05                              syscall
488dbc24a0000000                  lea rdi, [rsp+160]
31f6                              xor esi, esi
488937                            mov [rdi], rsi
48c74708404b4c00                  mov [rdi+8], 5000000
b823000000                        mov eax, 35  ; nanosleep
0f05                              syscall
31ff                     leave:   xor edi, edi
b8e7000000                        mov eax, 231  ; exit_group
0f05                              syscall
""",
    "aarch64": """
ff0303d1                 _start:  sub sp, sp, #192
210b0010                          adr x1, data
20040091                          add x0, x1, #1
e20300aa                          mov x2, x0
c30180d2                          mov x3, #14
24a00091                          add x4, x1, #40
080580d2                          mov x8, #40  ; mount
010000d4                          svc #0
e00300cb                          neg x0, x0
e0030039                          strb w0, [sp]
400a0010                          adr x0, data+8
610a0010                          adr x1, data+16
680b80d2                          mov x8, #91  ; capset
010000d4                          svc #0
200080d2                          mov x0, #1
210180d2                          mov x1, #9
e81480d2                          mov x8, #167  ; prctl
010000d4                          svc #0
000080d2                          mov x0, #0
e1030091                          mov x1, sp
220080d2                          mov x2, #1
080880d2                          mov x8, #64  ; write
010000d4                          svc #0
1f0400f1                          cmp x0, #1
e1070054                          b.ne leave
a9088052                          mov w9, #0x45
e91f0039                          strb w9, [sp, #7]
2900a0d2                          mov x9, #0x10000
e95300f9                          str x9, [sp, #160]
00008092                 reap:    mov x0, #-1
e1230091                          add x1, sp, #8
020080d2                          mov x2, #0
030080d2                          mov x3, #0
882080d2                          mov x8, #260  ; wait4
010000d4                          svc #0
1f0c00f1                          cmp x0, #3
c0010054                          b.eq report
1f0000f1                          cmp x0, #0
ecfeff54                          b.gt reap
e0830291                          add x0, sp, #160
010080d2                          mov x1, #0
020080d2                          mov x2, #0
030180d2                          mov x3, #8
281180d2                          mov x8, #137  ; rt_sigtimedwait
010000d4                          svc #0
200080d2                          mov x0, #1
010080d2                          mov x1, #0
e81480d2                          mov x8, #167  ; prctl
010000d4                          svc #0
ecffff17                          b reap
00008092                 report:  mov x0, #-1
010080d2                          mov x1, #0
220080d2                          mov x2, #1
030080d2                          mov x3, #0
882080d2                          mov x8, #260  ; wait4
010000d4                          svc #0
1f0000f1                          cmp x0, #0
2cffff54                          b.gt report
a4010054                          b.mi told
00008092                          mov x0, #-1
210180d2                          mov x1, #9
281080d2                          mov x8, #129  ; kill
010000d4                          svc #0
00008092                 rest:    mov x0, #-1
010080d2                          mov x1, #0
020080d2                          mov x2, #0
030080d2                          mov x3, #0
882080d2                          mov x8, #260  ; wait4
010000d4                          svc #0
1f0000f1                          cmp x0, #0
2cffff54                          b.gt rest
00008092                 told:    mov x0, #-1
e1330091                          add x1, sp, #12
a81480d2                          mov x8, #165  ; getrusage
010000d4                          svc #0
200080d2                          mov x0, #1
e11f0091                          add x1, sp, #7
a21280d2                          mov x2, #149
080880d2                          mov x8, #64  ; write
010000d4                          svc #0
8909a0d2                          mov x9, #0x4c0000
096889f2                          movk x9, #0x4b40
ff270aa9                          stp xzr, x9, [sp, #160]
e0830291                          add x0, sp, #160
010080d2                          mov x1, #0
a80c80d2                          mov x8, #101  ; nanosleep
010000d4                          svc #0
000080d2                 leave:   mov x0, #0
c80b80d2                          mov x8, #94  ; exit_group
010000d4                          svc #0
""",
}

_MACHINES = {"x86_64": 62, "aarch64": 183}
_ADDRESS, _HEADERS = 0x400000, 64 + 2 * 56


def program(machine: str) -> bytes:
    """Return the program as an ELF file for `machine`, "x86_64" or "aarch64"."""
    code = b"".join(bytes.fromhex(line.split()[0]) for line in _CODE[machine].split("\n") if line.strip())
    # What the code finds behind it: a path whose end is a type too, struct __user_cap_header, no capability, options.
    code += b"/proc".ljust(8, b"\0") + struct.pack("<II", 0x20080522, 0) + bytes(24) + PROC_OPTIONS.encode() + b"\0"
    size = _HEADERS + len(code)
    # Fields as in elf(5): 64 bits, little-endian; one segment of code and a stack that cannot be executed.
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = identity + struct.pack(
        "<HHIQQQIHHHHHH", 2, _MACHINES[machine], 1, _ADDRESS + _HEADERS, 64, 0, 0, 64, 56, 2, 64, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 4 | 1, 0, _ADDRESS, _ADDRESS, size, size, 0x10000)
    stack = struct.pack("<IIQQQQQQ", 0x6474E551, 4 | 2, 0, 0, 0, 0, 0, 16)
    return header + segment + stack + code
