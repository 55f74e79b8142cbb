"""Runs CPython's own regression tests outside and inside a sandbox, and compares what each test case came to.

Every case that comes out differently must match one of the explanations below; the rest is printed as unexplained. As root the
tests outside run as an ordinary user too: a root of the host's has rights that no sandbox gives.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree as ET

from benchmarks import report
from fumehood import Engine, ExecutionRequest, Limits
from fumehood.protocol.limits import MiB

SECONDS = 150.0
LIMITS = Limits(
    wall_seconds=SECONDS, cpu_seconds=2 * SECONDS, memory_bytes=2048 * MiB, pids=512, disk_bytes=512 * MiB,
    disk_files=50_000, output_bytes=16 * MiB, files_out_bytes=32 * MiB,
)  # fmt: skip
RESULTS = Path(__file__).parent / "compatibility"
#: Left out, each with its reason.
LEFT_OUT = {
    r"test_(multiprocessing_|concurrent_futures|asyncio$|regrtest$|venv$|ensurepip$|distutils$|tools$|peg_generator$|"
    r"test_asyncio|lib2to3$|idle$|tkinter$|ttk|tcl$|winreg|winsound|winconsoleio|msilib|ossaudiodev|startfile|turtle)": (
        "minutes long, or about what Debian does not install"
    ),
}
#: Why a case may come out differently inside, by what "NAME: what it came to" matches.
EXPLANATIONS: dict[str, str] = {
    r"test_socket\..*: not run": "it ran; read from the runner's words, where a warning tears some lines in two",
    r"\.test_(bdb|runpy|support|trace|pickle|import|imp|importlib|threading_local)\.|test_doctest\..*namespace_package": (
        "it removes a file that is not there: EROFS where /usr is read-only, and it expects ENOENT"
    ),
    r"test_mmap\.LargeMmapTests|test_largefile|large_file": "no file may be larger than disk_bytes",
    r"pty|test_readline|test_getpass|test_builtin\.Pty": "there are no terminals inside",
    r"test_resource\.|test_os\..*limit": "limits cannot be raised, nor those of others looked at; that of core files is 1",
    r"test_os\.ChownFileTests": "one user is mapped: another's number is EINVAL, and the test expects EPERM",
    r"test_spwd|test_pwd|test_grp": "there is no /etc/shadow, and two users",
    r"test_socket\..*(UDPLITE|RDS|QIPCRTR|VSOCK|CAN|TIPC|Bluetooth|ALG)": "no sockets but Unix, TCP and UDP",
    r"test_uuid\.": "there is no network interface but lo, and no ifconfig or ip",
    r"test_cppext|test_sysconfig|test_site\.": "/usr/include and /usr/local are not shown",
    r"test_subprocess\..*(user|group)": "one user and one group are mapped",
    r"test___all__|test_ast": "/etc/python3.11 is not shown, into which a file of the library is a link",
    r"InterfaceNameIndex|scopeid_symbolic": "the C library lists interfaces by netlink, which is refused",
    r"test_no_leaking": "it is for hosts with a low limit of open files, as inside",
    r"xattr|ExtendedAttribute": "extended attributes are refused, as by a file system without them",
}
# The host's interpreter in both places: what is compared is the walls.
_COMMAND = ("/usr/bin/python3", "-u", "-B", "main.py")
_PROGRAM = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts this in the background has it ignored
sys.argv = ["-m test", "-v", *sys.argv[1:]]
runpy.run_module("test", run_name="__main__", alter_sys=True)
"""
Cases = dict[str, str]


def main() -> int:
    """Run, compare, print, save; return how many differences nothing explains."""
    arguments = _options()
    names = [name for name in _listed() if not arguments.only or name in arguments.only]
    started = time.monotonic()
    with Engine(warm_bytes=0, isolation=arguments.isolation) as engine, ThreadPoolExecutor(2) as workers:

        def both(name: str) -> tuple[str, Cases, Cases]:
            outside, inside = _outside(name), _inside(engine, name)
            print(f"{name}: {_summary(outside)} | {_summary(inside)}", file=sys.stderr, flush=True)
            return name, outside, inside

        found = list(workers.map(both, names))
    modules = {name: {"outside": _counts(outside), "inside": _counts(inside)} for name, outside, inside in found}
    differences = [row for _name, outside, inside in found for row in _compared(outside, inside)]
    result = {
        **report.heading(f"compatibility-{arguments.isolation}"), "isolation": arguments.isolation,
        "python": subprocess.run([_COMMAND[0], "--version"], capture_output=True, text=True, check=True).stdout.strip(),
        "seconds": round(time.monotonic() - started), "left_out": LEFT_OUT,
        "outside": _total(modules, "outside"), "inside": _total(modules, "inside"),
        "differences": differences, "modules": modules,
    }  # fmt: skip
    unexplained = [row for row in differences if not row["why"]]
    print(
        f"outside {result['outside']}, inside {result['inside']}, {len(differences)} differ, {len(unexplained)} unexplained"
    )
    for row in unexplained:
        print(f"  {row['test']}: {row['outside']} outside, {row['inside']} inside")
    if not arguments.only:
        report.write(RESULTS, f"compatibility-{arguments.isolation}", result)
    return len(unexplained)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="run these modules alone, test_os for one, and save nothing")
    parser.add_argument("--isolation", default="namespaces", help="namespaces or gvisor")
    return parser.parse_args()


def _listed() -> list[str]:
    listed = subprocess.run([_COMMAND[0], "-m", "test", "--list-tests"], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if not any(re.match(each, name) for each in LEFT_OUT)]


def _outside(name: str) -> Cases:
    return _tried(name, lambda words: _run_outside(name, words))


def _inside(engine: Engine, name: str) -> Cases:
    return _tried(name, lambda words: _run_inside(engine, name, words))


def _tried(name: str, run: Callable[[list[str]], tuple[str, bytes, bytes]]) -> Cases:
    """Return what each case came to: "passed", "failed" or "skipped"; the module's own word where it ran none."""
    end, xml, words = run(["--junit-xml=out.xml"])
    cases = _of_xml(xml)
    if not cases and not end and b"uncaught exception" in words:
        # Writing XML, CPython's runner stumbles over errors in threads; its words are enough then.
        end, _xml, words = run([])
        cases = _of_words(words.decode("utf-8", "replace"))
    return cases or {name: end or ("skipped" if f"{name} skipped".encode() in words else "failed")}


def _run_outside(name: str, words: list[str]) -> tuple[str, bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        program = Path(folder, "main.py")
        program.write_text(_PROGRAM, encoding="utf-8")
        ordinary = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
        try:
            run = subprocess.run(
                [*ordinary, *_COMMAND, *words, name], cwd=folder, timeout=SECONDS, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                env={"PATH": "/usr/bin:/bin", "HOME": folder, "LANG": "C.UTF-8", "TZ": "UTC"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "timeout", b"", b""
        report_file = Path(folder, "out.xml")
        return "", report_file.read_bytes() if report_file.exists() else b"", run.stdout


def _run_inside(engine: Engine, name: str, words: list[str]) -> tuple[str, bytes, bytes]:
    request = ExecutionRequest(
        code=f"exec {' '.join([*_COMMAND, *words])} {name} 2>&1", language="bash", files={"main.py": _PROGRAM}, env={"HOME": "/work"},
        limits=LIMITS,
    )  # fmt: skip
    result = engine.execute(request)
    end = result.reason if result.reason in ("timeout", "out_of_memory", "output_limit") else ""
    return end, next((file.data for file in result.files if file.path == "out.xml"), b""), result.stdout_bytes


def _of_words(words: str) -> Cases:
    meaning = {"ok": "passed", "skipped": "skipped", "expected failure": "passed"}
    found = re.findall(
        r"^(\w+) \(([\w.]+)\)(?:\n.*)? \.\.\. (ok|skipped|ERROR|FAIL|expected failure)", words, re.MULTILINE
    )
    return {where: meaning.get(end, "failed") for _name, where, end in found}


def _of_xml(xml: bytes) -> Cases:
    cases: Cases = {}
    for case in ET.fromstring(xml).iter("testcase") if xml else ():  # noqa: S314 - CPython wrote it
        bad = case.find("failure") is not None or case.find("error") is not None
        if (name := case.get("name")) is None:
            continue  # cut short by an error in a part of it
        cases[name] = "failed" if bad else "skipped" if case.find("skipped") is not None else "passed"
    return cases


def _compared(outside: Cases, inside: Cases) -> list[dict[str, str]]:
    rows = []
    if len(inside) == 1 < len(outside) and (whole := next(iter(inside))) not in outside:
        # The module came to nothing as a whole: one row says so, not one for each of its cases.
        outside = {whole: f"{len(outside)} cases"}
    for test in sorted(outside.keys() | inside.keys()):
        first, second = outside.get(test, "not run"), inside.get(test, "not run")
        if first != second:
            rows.append({"test": test, "outside": first, "inside": second, "why": _why(test, second)})
    return rows


def _why(test: str, inside: str) -> str:
    return next((reason for pattern, reason in EXPLANATIONS.items() if re.search(pattern, f"{test}: {inside}")), "")


def _counts(cases: Cases) -> dict[str, int]:
    return {what: number for what in sorted(set(cases.values())) if (number := list(cases.values()).count(what))}


def _summary(cases: Cases) -> str:
    return ", ".join(f"{number} {what}" for what, number in _counts(cases).items())


def _total(modules: dict[str, dict[str, dict[str, int]]], side: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for sides in modules.values():
        for what, number in sides[side].items():
            total[what] = total.get(what, 0) + number
    return total


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
