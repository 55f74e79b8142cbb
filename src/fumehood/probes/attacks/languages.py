"""The attacks that matter most, written in each language: an interpreter of its own must not stand outside of a wall."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ...protocol.limits import Limits, MiB
from ..host_side import alive, end, in_environment, listening, nobody_came, secret_file, taken_from_host, victim
from ..suite import Suite, at_most, holds, same
from ..target import LIMITS

if TYPE_CHECKING:
    from typing import Any

    from ...protocol.execution import ExecutionResult
    from ..target import Target

SUITE = Suite("languages")

_LANGUAGES = {language: language for language in ("bash", "javascript", "typescript", "ruby", "php")}
# No other language's sandboxes are started warm.
_ONE_WAY: Any = {"only_ways": ("cold", "gvisor", "unwalled")}
_JAVASCRIPT = "const fs = require('fs'), cp = require('child_process'), net = require('net');\n"
_BEGINNING = {
    "bash": "",
    "javascript": _JAVASCRIPT,
    "typescript": "import * as fs from 'node:fs';\nimport * as cp from 'node:child_process';\nimport * as net from 'node:net';\n"
    "import process from 'node:process';\nimport { Buffer } from 'node:buffer';\n",
    "ruby": "require 'socket'\n",
    "php": "<?php\n",
}


def _run(
    target: Target, language: str, programs: dict[str, str], what: object = "", **fields: object
) -> ExecutionResult:
    """Run a language's program, with `what` in the place of each @."""
    program = programs.get(language) or programs["javascript"]
    code = _BEGINNING[language] + program.replace("@", str(what))
    return target.run(code, language=language, warm=False, **fields)  # type: ignore[arg-type]  # the request's own


_READ = {
    "bash": "cat @",
    "javascript": "process.stdout.write(fs.readFileSync('@', 'utf8'))",
    "ruby": "print File.read('@')",
    "php": "echo file_get_contents('@') ?: exit(1);",
}


@SUITE.probe_each(
    "P01", _LANGUAGES, tried="read a file of the host's, in {}", expected="it is not there", wall="files", **_ONE_WAY
)
def a_host_file_cannot_be_read(target: Target, language: str) -> None:
    with secret_file() as secret:
        result = _run(target, language, _READ, secret)
        holds(secret.read_text() not in result.stdout, "the file was read")
        holds(result.exit_code != 0, "the program found something to open")


@SUITE.probe_each("P03", _LANGUAGES, tried="read a file of the host's through /proc and parent folders, in {}",
                  expected="it is not there", wall="files", **_ONE_WAY)  # fmt: skip
def a_host_file_cannot_be_read_by_a_detour(target: Target, language: str) -> None:
    with secret_file() as secret:
        for route in ("/proc/self/root", "/proc/self/cwd/" + "../" * 40):
            result = _run(target, language, _READ, f"{route}{secret}")
            holds(secret.read_text() not in result.stdout, f"the file was read through {route}")


_WRITE = {
    "bash": "echo x > @",
    "javascript": "fs.writeFileSync('@', 'x')",
    "ruby": "File.write('@', 'x')",
    "php": "file_put_contents('@', 'x');",
}


@SUITE.probe_each("P02", _LANGUAGES, tried="leave a file in /var/tmp and /tmp, in {}", expected="not there on the host", wall="files", **_ONE_WAY)  # fmt: skip
def no_file_is_left_on_the_host(target: Target, language: str) -> None:
    paths = [Path(folder, f"escape-{secrets.token_hex(8)}") for folder in ("/var/tmp", "/tmp")]
    for path in paths:
        _run(target, language, _WRITE, path)
    same(taken_from_host(*paths), [])


_CONNECT = {
    "bash": "exec 3<>/dev/tcp/127.0.0.1/@",
    "javascript": "const s = net.connect(@, '127.0.0.1', () => s.destroy()); s.on('error', () => process.exit(1))",
    "ruby": "TCPSocket.new('127.0.0.1', @).write('x')",
    "php": "exit(fsockopen('127.0.0.1', @) ? 0 : 1);",
}


@SUITE.probe_each("P85", _LANGUAGES, tried="connect to a port of the host's, in {}", expected="nobody comes", wall="network", **_ONE_WAY)  # fmt: skip
def a_port_of_the_hosts_is_out_of_reach(target: Target, language: str) -> None:
    with listening() as server:
        result = _run(target, language, _CONNECT, server.getsockname()[1])
        nobody_came(server)
    holds(result.exit_code != 0, "the program could connect")


_UNIX = {
    "bash": "python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"@\")' || perl -MIO::Socket::UNIX -e "
    "'IO::Socket::UNIX->new(\"@\") or exit 1'",
    "javascript": "const s = net.connect('@', () => s.destroy()); s.on('error', () => process.exit(1))",
    "ruby": "UNIXSocket.new('@').write('x')",
    "php": "exit(stream_socket_client('unix://@') ? 0 : 1);",
}


@SUITE.probe_each("P100", _LANGUAGES, tried="connect to a socket of the host's in /tmp, in {}", expected="not there", wall="files", **_ONE_WAY)  # fmt: skip
def a_socket_of_the_hosts_is_not_there(target: Target, language: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with listening(f"{folder}/socket") as server:
            _run(target, language, _UNIX, f"{folder}/socket")
            nobody_came(server)


_ENVIRONMENT = {
    "bash": "export -p; cat /proc/[0-9]*/environ /proc/self/environ",
    "javascript": "console.log(JSON.stringify(process.env)); process.stdout.write(fs.readFileSync('/proc/self/environ'))",
    "ruby": "puts ENV.to_h, File.binread('/proc/self/environ')",
    "php": "print_r(getenv()); echo file_get_contents('/proc/self/environ');",
}


@SUITE.probe_each("P103", _LANGUAGES, tried="print the host's environment, in {}", expected="nothing of it", wall="files", **_ONE_WAY)  # fmt: skip
def the_hosts_environment_is_not_there(target: Target, language: str) -> None:
    value = secrets.token_hex(16)
    with in_environment("FUMEHOOD_PROBE_SECRET", value):
        result = _run(target, language, _ENVIRONMENT)
    holds(value not in result.stdout, "the value was seen")
    holds("PATH" in result.stdout, "the program did not look")


_PROCESSES = {
    "bash": "cat /proc/[0-9]*/cmdline; echo looked",
    "javascript": "for (const p of fs.readdirSync('/proc')) if (/^[0-9]/.test(p)) "
    "try { process.stdout.write(fs.readFileSync(`/proc/${p}/cmdline`)) } catch {}\nconsole.log('looked')",
    "ruby": "Dir['/proc/[0-9]*/cmdline'].each { |p| print File.binread(p) rescue 0 }; puts 'looked'",
    "php": "foreach (glob('/proc/[0-9]*/cmdline') as $p) echo file_get_contents($p); echo \"looked\\n\";",
}


@SUITE.probe_each("P36", _LANGUAGES, tried="list the host's processes with their arguments, in {}", expected="none", wall="proc", **_ONE_WAY)  # fmt: skip
def no_process_of_the_hosts_is_seen(target: Target, language: str) -> None:
    marker = secrets.token_hex(8)
    with victim(f"input()  # {marker}"):
        result = _run(target, language, _PROCESSES)
    holds(marker not in result.stdout, "a process of the host's was seen")
    holds(result.stdout.endswith("looked\n"), "the program did not look to the end")


_KILL = {
    "bash": "kill -9 @",
    "javascript": "process.kill(@, 'SIGKILL')",
    "ruby": "Process.kill(9, @)",
    "php": "exec('kill -9 @', $said, $code); exit($code);",
}


@SUITE.probe_each("P35", _LANGUAGES, tried="kill a process of the host's, in {}", expected="it lives", wall="pid-namespace", **_ONE_WAY)  # fmt: skip
def a_process_of_the_hosts_cannot_be_killed(target: Target, language: str) -> None:
    with victim() as process:
        result = _run(target, language, _KILL, process.pid)
        holds(process.poll() is None, "it died")
    holds(result.exit_code != 0, "the program was told that it did")


_DAEMON = {
    "bash": "setsid sh -c 'sleep 5; true @' < /dev/null > /dev/null 2>&1 &\nsleep 0.2; echo left",
    "javascript": "cp.spawn('sh', ['-c', 'sleep 5; true @'], {detached: true, stdio: 'ignore'}).unref();\n"
    "setTimeout(() => console.log('left'), 200)",
    "ruby": "spawn('sh', '-c', 'sleep 5; true @', pgroup: true, in: '/dev/null', out: '/dev/null', err: '/dev/null')\n"
    "sleep 0.2; puts 'left'",
    "php": 'exec("setsid sh -c \'sleep 5; true @\' < /dev/null > /dev/null 2>&1 &"); usleep(200000); echo "left\\n";',
}


@SUITE.probe_each("P33", _LANGUAGES, tried="leave a process that goes on, in {}", expected="it is gone with the program", wall="pid-namespace", **_ONE_WAY)  # fmt: skip
def a_daemon_does_not_outlive_its_execution(target: Target, language: str) -> None:
    marker = secrets.token_hex(8)
    result = _run(target, language, _DAEMON, marker)
    left = alive(marker)
    end(left)
    same(result.stdout, "left\n")
    same(left, [])


# Each child says that it is there: what counts is how many could.
_BOMB = {
    "bash": "for i in {1..90}; do { echo x; exec sleep 3; } & done; sleep 0.5",
    "javascript": "for (let i = 0; i < 90; i++) cp.spawn('sh', ['-c', 'echo x; exec sleep 3'], {stdio: ['ignore', 1, 2]}).on('error', () => 0);\n"
    "setTimeout(() => process.exit(0), 500)",
    "ruby": "90.times { spawn('sh', '-c', 'echo x; exec sleep 3') rescue 0 }; sleep 0.5",
    "php": "for ($i = 0; $i < 90; $i++) $kept[] = proc_open(['sh', '-c', 'echo x; exec sleep 3'], [1 => STDOUT], $pipes); usleep(500000);"
    " posix_kill(posix_getpid(), 9);",
}


@SUITE.probe_each("P31", _LANGUAGES, tried="start 90 processes, in {}", expected="they stop at the limit", wall="processes", **_ONE_WAY)  # fmt: skip
def a_bomb_stops_at_the_limit(target: Target, language: str) -> None:
    # Bash tries again for seconds where it is refused.
    limits = Limits(wall_seconds=1, memory_bytes=256 * MiB, pids=LIMITS.pids)
    made = _run(target, language, _BOMB, limits=limits).stdout.count("x\n")
    at_most(made, LIMITS.pids)
    holds(made > 0, "the program could start none")


_MEMORY = {
    "bash": "s=xxxxxxxxxxxxxxxx; for i in {1..23}; do s=$s$s; done; echo all",
    "javascript": "const kept = []; for (let i = 0; i < 300; i++) kept.push(Buffer.alloc(1 << 20, 1)); console.log('all')",
    "ruby": "kept = []; 300.times { kept << 'x' * (1 << 20) }; puts 'all'",
    "php": "ini_set('memory_limit', '-1'); for ($i = 0; $i < 300; $i++) $kept[] = str_repeat('x', 1 << 20); echo \"all\\n\";",
}


@SUITE.probe_each("P48", _LANGUAGES, tried="fill the memory, in {}", expected="death, called out of memory", wall="memory", **_ONE_WAY)  # fmt: skip
def a_flood_of_memory_is_ended(target: Target, language: str) -> None:
    result = _run(target, language, _MEMORY)
    same((result.reason, result.stdout), ("out_of_memory", ""))


_OUTPUT = {
    "bash": "for i in {1..40}; do printf '%0100000d' 0; done",
    "javascript": "for (let i = 0; i < 40; i++) fs.writeSync(1, 'x'.repeat(100000))",
    "ruby": "40.times { print 'x' * 100_000 }",
    "php": "for ($i = 0; $i < 40; $i++) echo str_repeat('x', 100000);",
}


@SUITE.probe_each("P104", _LANGUAGES, tried="print 4 MB where 1 MiB is allowed, in {}", expected="it is cut off there", wall="output", **_ONE_WAY)  # fmt: skip
def a_flood_of_output_is_cut_off(target: Target, language: str) -> None:
    result = _run(target, language, _OUTPUT, limits=Limits(wall_seconds=10, output_bytes=1 * MiB))
    same((result.reason, len(result.stdout_bytes)), ("output_limit", 1 * MiB))


_STUBBORN = {
    "bash": "trap '' TERM INT HUP XCPU; while :; do :; done",
    "javascript": "process.on('SIGTERM', () => 0); process.on('SIGINT', () => 0); for (;;);",
    "ruby": "%w[TERM INT HUP XCPU].each { |name| trap(name, 'IGNORE') }; loop {}",
    "php": "set_time_limit(0); while (true);",
}


@SUITE.probe_each("P34", _LANGUAGES, tried="ignore signals and spin past the deadline, in {}", expected="death, called a timeout", wall="time", **_ONE_WAY)  # fmt: skip
def a_program_dies_at_its_deadline(target: Target, language: str) -> None:
    result = _run(target, language, _STUBBORN, limits=Limits(wall_seconds=0.4))
    same((result.reason, result.exit_code), ("timeout", 124))


_SETUID = {
    "bash": "su -c id; mount -t tmpfs none /tmp && echo mounted && umount /tmp; id",
    "javascript": "for (const line of ['su -c id', 'id']) process.stdout.write(cp.spawnSync('sh', ['-c', line]).stdout)",
    "ruby": "print `su -c id 2>&1`, `id`",
    "php": "echo shell_exec('su -c id 2>&1; id');",
}


@SUITE.probe_each("P11", _LANGUAGES, tried="become root by su, in {}", expected="it stays who it is", wall="no-new-privileges", only_root=True, **_ONE_WAY)  # fmt: skip
def no_setuid_program_gains_anything(target: Target, language: str) -> None:
    result = _run(target, language, _SETUID)
    holds("uid=" in result.stdout, "the program could not ask who it is")
    holds("uid=0" not in result.stdout and "mounted" not in result.stdout, "it is root")
