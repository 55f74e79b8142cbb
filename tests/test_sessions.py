"""Sessions: state is kept, events come in order, and whatever a cell does, it or its session ends and says why."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fumehood import CellError, CellResult, Display, Engine, Event, Limits, Output, Session
from fumehood.errors import InvalidFilePath, InvalidRequest, SessionBusy, SessionDead, UnknownLanguage
from fumehood.protocol.limits import MiB

LIMITS = Limits(wall_seconds=20, cpu_seconds=60, memory_bytes=256 * MiB)


@pytest.fixture(scope="module", params=["cold", "warm"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with Engine(warm_bytes=0 if request.param == "cold" else 256 * MiB) as engine:
        if request.param == "warm":
            with engine.session():
                time.sleep(1)  # the first one starts cold and has the zygote made
        yield engine


@pytest.fixture(scope="module", params=["python", "python-data"])
def session(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Session]:
    limits = LIMITS.replace(memory_bytes=512 * MiB)
    with engine.session(request.param, limits=limits) as session:
        yield session


def test_state_is_kept_between_cells(session: Session) -> None:
    assert session.run("x = 41").ok
    assert session.run("def f(): return x + 1").ok
    assert session.run("f()").result == {"text/plain": "42"}
    assert session.run("import json as j").ok
    assert session.run("j.dumps([1])").result == {"text/plain": "'[1]'"}


def test_the_last_expression_is_shown_unless_hidden(session: Session) -> None:
    assert session.run("1; 2").result == {"text/plain": "2"}
    assert session.run("3;").result is None
    assert session.run("None").result is None
    assert session.run("y = 4").result is None
    assert session.run("'_' in globals() and _").result == {"text/plain": "2"}


def test_events_are_in_the_order_in_which_they_happened(session: Session) -> None:
    code = """
import os, sys
print('a'); print('b', file=sys.stderr); os.system('echo c'); print('d'); os.write(1, b'e'); print('f', file=sys.stderr)
display('g'); os.system('echo h >&2'); print('i')
"""
    said = [each.text if isinstance(each, Output) else "g" for each in session.run(code).events]
    assert "".join(said).replace("\n", "") == "abcdefghi"


def test_events_come_while_the_cell_runs(session: Session) -> None:
    heard: list[tuple[float, Event]] = []
    code = "import time\nfor n in range(3): print(n); time.sleep(0.3)"
    session.run(code, on_event=lambda event: heard.append((time.monotonic(), event)))
    times = [when for when, event in heard if isinstance(event, Output) and event.text.strip()]
    assert len(times) == 3
    assert times[2] - times[0] > 0.4


def test_an_exception_is_an_event_with_its_traceback_and_state_stays(session: Session) -> None:
    session.run("kept = 5")
    result = session.run("def g(): 1/0\ng()")
    assert not result.ok
    assert result.ended == "finished"
    assert result.error is not None
    assert (result.error.name, result.error.value) == ("ZeroDivisionError", "division by zero")
    assert "in g" in result.error.traceback
    assert "session.py" not in result.error.traceback
    assert session.run("kept").result == {"text/plain": "5"}


BAD_CELLS = {
    "syntax": ("def (", "SyntaxError"),
    "null_byte": ("x = 1\0", None),
    "exit": ("raise SystemExit(3)", "SystemExit"),
    "base_exception": ("class B(BaseException): pass\nraise B()", "B"),
    "bad_repr": ("class R:\n    def __repr__(self): raise KeyError('k')\nR()", None),
    "bad_text": ("class E(Exception):\n    def __str__(self): raise ValueError\nraise E()", "E"),
    "recursion": ("def r(): r()\nr()", "RecursionError"),
}


@pytest.mark.parametrize(("code", "name"), BAD_CELLS.values(), ids=BAD_CELLS.keys())
def test_a_bad_cell_leaves_the_session_well(session: Session, code: str, name: str | None) -> None:
    result = session.run(code)
    assert result.error is None or name is None or result.error.name == name
    assert session.run("1 + 1").result == {"text/plain": "2"}


def test_rich_values_are_mime_bundles(session: Session) -> None:
    code = """
class Rich:
    def _repr_html_(self): return '<b>h</b>'
    def _repr_svg_(self): return '<svg/>'
    def _repr_latex_(self): return '$l$'
    def _repr_png_(self): return b'\\x89PNG\\r\\n\\x1a\\n'
    def __repr__(self): return 'plain'
Rich()
"""
    data = session.run(code).result
    assert data is not None
    assert (data["text/html"], data["image/svg+xml"], data["text/latex"]) == ("<b>h</b>", "<svg/>", "$l$")
    assert data["text/plain"] == "plain"
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    bundle = (
        "class M:\n    def _repr_mimebundle_(self, **k): return {'application/json': {'a': 1}, 'text/plain': 'm'}\nM()"
    )
    assert session.run(bundle).result == {"application/json": {"a": 1}, "text/plain": "m"}


def test_display_shows_several_things(session: Session) -> None:
    result = session.run("display(1, 'two'); display([3])")
    assert [each.data["text/plain"] for each in result.displays] == ["1", "'two'", "[3]"]
    assert result.result is None


def test_await_works_at_the_top_level(session: Session) -> None:
    assert session.run("import asyncio\nawait asyncio.sleep(0.01)\n7").result == {"text/plain": "7"}
    assert session.run("async def co(): return 8\nawait co()").result == {"text/plain": "8"}


def test_shell_commands_run_with_a_bang(session: Session) -> None:
    result = session.run("!echo out; echo err >&2")
    assert sorted((result.stdout + result.stderr).split()) == ["err", "out"]
    assert session.run("for n in range(2):\n    !echo $((1 + 1))").stdout == "2\n2\n"


def test_a_string_that_looks_like_a_command_stays_a_string(session: Session) -> None:
    assert session.run("s = '''\n!echo x\n'''\ns").result == {"text/plain": "'\\n!echo x\\n'"}


def test_a_timeout_interrupts_and_keeps_state(session: Session) -> None:
    session.run("before = 1")
    result = session.run("import time\ntime.sleep(30)", timeout=0.5)
    assert result.ended == "timeout"
    assert not result.ok
    assert result.error is not None
    assert result.error.name == "KeyboardInterrupt"
    assert result.duration_seconds < 3
    assert session.run("before").result == {"text/plain": "1"}
    assert session.run("while True: pass", timeout=0.3).ended == "timeout"
    assert session.run("!sleep 30", timeout=0.3).ended == "timeout"
    assert session.status == "idle"


def test_interrupt_from_another_thread(session: Session) -> None:
    timer = threading.Timer(0.4, session.interrupt)
    timer.start()
    result = session.run("import time\ntime.sleep(30)")
    timer.join()
    assert result.error is not None
    assert result.error.name == "KeyboardInterrupt"
    assert result.duration_seconds < 5
    session.interrupt()  # nothing runs: nothing happens
    assert session.run("9").result == {"text/plain": "9"}


def test_two_cells_at_once_are_refused(session: Session) -> None:
    thread = threading.Thread(target=session.run, args=("import time; time.sleep(0.6)",))
    thread.start()
    time.sleep(0.2)
    assert session.status == "busy"
    with pytest.raises(SessionBusy, match="runs a cell already"):
        session.run("1")
    thread.join()


def test_arun_and_its_cancellation(session: Session) -> None:
    async def both() -> CellResult:
        task = asyncio.create_task(session.arun("import time; time.sleep(30)"))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await session.arun("6 * 7")

    assert asyncio.run(both()).result == {"text/plain": "42"}


def test_files_are_put_listed_and_fetched(session: Session) -> None:
    session.put_file("in/data.txt", "one")
    session.put_file("in/data.txt", b"two")
    assert session.run("open('in/data.txt').read()").result == {"text/plain": "'two'"}
    session.run("open('in/data.txt', 'a').write('!'); open('out.bin', 'wb').write(bytes(5))")
    assert session.list_files() == {"in/data.txt": 4, "out.bin": 5}
    assert session.get_file("in/data.txt") == b"two!"
    session.run("import os; os.unlink('out.bin'); os.unlink('in/data.txt'); os.rmdir('in')")
    for path in ("missing", "../x", "/etc/passwd", ""):
        with pytest.raises(InvalidFilePath):
            session.get_file(path)


def test_hostile_files_do_not_lead_the_host_out(session: Session, tmp_path: Path) -> None:
    session.run(
        "import os; os.symlink('/etc', 'd'); os.symlink('/etc/hostname', 'l'); os.mkfifo('p'); os.mkdir('real')"
    )
    for path in ("d/x", "l", "p", "real"):
        with pytest.raises(InvalidFilePath):
            session.get_file(path)
    with pytest.raises(InvalidFilePath):
        session.put_file("d/fumehood-was-here", "x")
    assert not Path("/etc/fumehood-was-here").exists()
    session.put_file("l", "replaced")
    assert session.get_file("l") == b"replaced"
    session.run("[os.unlink(n) for n in ('d', 'l', 'p')]; os.rmdir('real')")


def test_what_a_cell_left_running_is_shown_with_the_next(session: Session) -> None:
    session.run("import threading\nthreading.Timer(0.2, lambda: print('late')).start()")
    time.sleep(0.6)
    assert session.run("'now'").stdout == "late\n"


def test_its_program_is_not_among_its_files(session: Session) -> None:
    assert session.run("import os; os.listdir('.')").result == {"text/plain": "[]"}
    assert session.run("import sys; sys.argv, __name__").result == {"text/plain": "([''], '__main__')"}


def test_figures_are_shown_as_pictures(engine: Engine) -> None:
    with engine.session("python-data", limits=LIMITS.replace(memory_bytes=512 * MiB)) as session:
        result = session.run("import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
        pictures = [each.data["image/png"] for each in result.displays if "image/png" in each.data]
        assert len(pictures) == 1
        assert base64.b64decode(pictures[0]).startswith(b"\x89PNG")
        frame = session.run("import pandas as pd; pd.DataFrame({'a': [1]})").result
        assert frame is not None
        assert "<table" in frame["text/html"]
        latex = session.run("import sympy; sympy.sqrt(2)").result
        assert latex is not None
        assert "sqrt" in latex["text/latex"]


DEATHS = {
    "crashed": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    "exited": ("import os; os._exit(5)", "exit code 5"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
    "out_of_memory": ("a = []\nimport time\nwhile True: a.append(b'x' * (4 << 20)); time.sleep(0.005)", "bytes"),
    "timeout": (
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        "could not be interrupted",
    ),
}


@pytest.mark.parametrize(("reason", "code", "detail"), [(k, *v) for k, v in DEATHS.items()], ids=DEATHS.keys())
def test_every_death_has_its_reason_and_restart_works(engine: Engine, reason: str, code: str, detail: str) -> None:
    limits = LIMITS.replace(memory_bytes=96 * MiB)
    with engine.session(limits=limits) as session:
        name = session.id
        session.run("lost = 1")
        result = session.run(code, timeout=1.0 if reason == "timeout" else 15.0)
        assert result.ended == "died"
        assert not result.ok
        assert session.status == "dead"
        assert session.death is not None
        assert session.death.reason == reason
        assert detail in session.death.detail
        with pytest.raises(SessionDead, match=reason):
            session.run("1")
        with pytest.raises(SessionDead):
            session.list_files()
        session.restart()
        assert session.id == name
        error = session.run("lost").error
        assert error is not None
        assert error.name == "NameError"
    assert session.status == "dead"


def test_idle_and_old_sessions_are_ended(engine: Engine) -> None:
    with engine.session(idle_seconds=0.4) as idle, engine.session(lifetime_seconds=1.0) as old:
        until = time.monotonic() + 10
        while time.monotonic() < until and not (idle.death and old.death):
            if old.status == "idle":
                old.run("1")
            time.sleep(0.05)
        assert idle.death is not None
        assert idle.death.reason == "idle"
        assert old.death is not None
        assert old.death.reason == "lifetime"


def test_a_session_may_live_for_months(engine: Engine) -> None:
    with engine.session(idle_seconds=1e7, lifetime_seconds=1e8) as session:
        assert session.run("print(1)").stdout == "1\n"


FORGERIES = {
    "no_header": "os.write(63, b'x' * 10)",
    "not_json": "os.write(63, b'1 0 {')",
    "not_an_object": "os.write(63, b'1 0 []')",
    "deep": "os.write(63, b'1 0 ' + b'[' * 50_000)",
    "unknown_kind": 'os.write(63, b\'1 0 {"type": "x"}\')',
    "wrong_types": 'os.write(63, b\'1 0 {"type": "display", "data": 5}\')',
    "endless": "while True: os.write(63, b'1 1 ' + b'x' * 50_000)",
    "many_senders": "for n in range(1000): os.write(63, b'%d 1 x' % n)",
    "huge_number": "os.write(63, b'9' * 50_000 + b' 1 x')",
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forged_message_ends_the_session_and_nothing_else(engine: Engine, forgery: str) -> None:
    with engine.session(limits=LIMITS) as session:
        result = session.run(f"import os, time\n{forgery}\ntime.sleep(5)")
        assert result.ended == "died"
        assert session.death is not None
        assert session.death.reason == "protocol"


def test_a_forged_end_ends_that_cell_alone(engine: Engine) -> None:
    with engine.session(limits=LIMITS) as session:
        session.run('import os; os.write(63, b\'1 0 {"type": "done", "ok": true}\'); x = 5')
        time.sleep(0.2)
        results = [session.run("x") for _ in range(3)]
        assert any(result.result == {"text/plain": "5"} for result in results)
        assert session.status != "dead" or session.death is not None


def test_a_flood_of_output_is_bounded_and_interrupted(engine: Engine) -> None:
    with engine.session(limits=LIMITS.replace(output_bytes=1 * MiB)) as session:
        for flood in ("while True: print('x' * 1000)", "import os\nwhile True: os.write(1, b'x' * 1000)"):
            result = session.run(flood)
            assert result.ended == "output_limit"
            assert len(result.stdout) <= 1 * MiB
        assert session.run("1").ok


def test_a_large_cell_and_a_large_value(engine: Engine) -> None:
    with engine.session(limits=LIMITS) as session:
        assert session.run(f"s = {'x' * 1_500_000!r}\nlen(s)").result == {"text/plain": "1500000"}
        shown = session.run("print(s)")
        assert len(shown.stdout) == 1_500_001
        assert session.run("class H:\n    def _repr_html_(self): return s\nH()").result is not None


def test_a_process_that_a_cell_forked_may_print(engine: Engine) -> None:
    with engine.session(limits=LIMITS) as session:
        code = "import os\npid = os.fork()\nif pid == 0:\n    print('child' * 20_000); os._exit(0)\nos.waitpid(pid, 0); print('parent')"
        assert session.run(code).stdout == "child" * 20_000 + "\nparent\n"


def test_sessions_see_nothing_of_one_another(engine: Engine) -> None:
    with engine.session(limits=LIMITS) as one, engine.session(limits=LIMITS) as other:
        one.run(
            "x = 1; open('f', 'w').write('secret'); open('/tmp/f', 'w').write('s'); open('/dev/shm/f', 'w').write('s')"
        )
        assert other.run("'x' in globals()").result == {"text/plain": "False"}
        seen = other.run(
            "import os; [os.listdir(p) for p in ('.', '/tmp', '/dev/shm')], [p for p in os.listdir('/proc') if p.isdigit()]"
        )
        assert seen.result == {"text/plain": "([[], [], []], ['3'])"}
        assert one.run("import random; random.random()").result != other.run("import random; random.random()").result


def test_a_session_takes_files_and_environment(engine: Engine) -> None:
    with engine.session(env={"K": "v"}, files={"a/b.txt": "t"}, limits=LIMITS) as session:
        assert session.run("import os; os.environ['K'], open('a/b.txt').read()").result == {"text/plain": "('v', 't')"}


def test_languages_without_sessions_say_so(engine: Engine) -> None:
    with pytest.raises(InvalidRequest, match="ruby.*no sessions"):
        engine.session("ruby")
    with pytest.raises(UnknownLanguage):
        engine.session("cobol")


def test_closing_the_engine_ends_its_sessions(engine: Engine) -> None:
    with Engine(warm_bytes=0) as own:
        session = own.session()
        pid = session._incarnation._live.pid
    until = time.monotonic() + 5
    while time.monotonic() < until and session.status != "dead":
        time.sleep(0.02)
    assert session.status == "dead"
    # Whoever adopted it may not have waited for it yet.
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
    with pytest.raises(SessionDead):
        session.run("1")


def test_a_listener_that_fails_ends_its_cell(engine: Engine) -> None:
    class Mine(Exception):
        pass

    def fail(_event: Event) -> None:
        raise Mine

    with engine.session(limits=LIMITS) as session:
        with pytest.raises(Mine):
            session.run("import time\nprint(1)\ntime.sleep(30)", on_event=fail)
        until = time.monotonic() + 5
        while session.status == "busy" and time.monotonic() < until:
            time.sleep(0.02)
        assert session.run("2").result == {"text/plain": "2"}


def test_a_cell_that_nobody_listens_to_cannot_run_on(engine: Engine) -> None:
    def fail(_event: Event) -> None:
        raise RuntimeError("mine")

    with engine.session(limits=LIMITS) as session:
        stubborn = (
            "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint(1)\nwhile True: time.sleep(1)"
        )
        with pytest.raises(RuntimeError, match="mine"):
            session.run(stubborn, on_event=fail)
        assert session.death is not None
        assert session.death.reason == "timeout"


DEEP = {
    "display": '{"type": "display", "metadata": {}, "data": {"a": \' + b\'[\' * 900 + b\']\' * 900 + b\'}}',
    "name": '{"type": [[]]}',
    "stream": '{"type": "stream", "name": [[]], "text": {}}',
}


@pytest.mark.parametrize("message", DEEP.values(), ids=DEEP.keys())
def test_odd_messages_do_not_stop_the_listener(engine: Engine, message: str) -> None:
    with engine.session(limits=LIMITS) as session:
        result = session.run(f"import os, time\nos.write(63, b'1 0 {message}')\ntime.sleep(0.3)")
        assert result.ended in ("finished", "died")
        assert session.status == ("dead" if result.ended == "died" else "idle")
    assert session.status == "dead"


def test_the_program_can_be_killed_from_outside(engine: Engine) -> None:
    with engine.session(limits=LIMITS) as session:
        os.kill(session._incarnation._live.pid, signal.SIGKILL)
        until = time.monotonic() + 5
        while session.status != "dead" and time.monotonic() < until:
            time.sleep(0.02)
        assert session.death is not None
        assert session.death.reason == "killed"


def test_events_are_what_they_say() -> None:
    assert isinstance(CellError(name="a", value="b", traceback="c"), Event)
    assert isinstance(Display(data={}, metadata={}), Event)


@pytest.fixture(scope="module")
def bash(engine: Engine) -> Iterator[Session]:
    with engine.session("bash", limits=LIMITS) as session:
        yield session


BASH_CELLS = {
    "variables": ("x=5; declare -A m; m[a]=1", "echo $x ${m[a]}", "5 1\n"),
    "functions": ("f() { echo f$1; }", "f 2", "f2\n"),
    "folder": ("cd /tmp", "pwd; cd /work", "/tmp\n"),
    "quotes": ("", 'echo "q\\"uote" \'a\\\\b\' "\\$x" \'ü😀\'', 'q"uote a\\\\b $x ü😀\n'),
    "lines": ("", "cat <<X\none\n\ntwo\nX\nif true; then\n  echo three\nfi", "one\n\ntwo\nthree\n"),
    "options": ("set -f", "echo *; set +f", "*\n"),
    "long": ("", f"echo {'x' * 150_000} | wc -c", "150001\n"),
}


@pytest.mark.parametrize(("first", "then", "said"), BASH_CELLS.values(), ids=BASH_CELLS.keys())
def test_bash_cells_share_state(bash: Session, first: str, then: str, said: str) -> None:
    bash.run(first)
    result = bash.run(then)
    assert result.ok
    assert result.stdout == said


def test_bash_cells_end_well_or_say_how(bash: Session) -> None:
    failed = bash.run("echo e >&2; false")
    assert not failed.ok
    assert failed.stderr == "e\n"
    assert failed.error is not None
    assert failed.error.value == "1"
    assert not bash.run("((").ok
    assert bash.run("kept=1; while true; do sleep 20; done", timeout=0.5).ended == "timeout"
    assert bash.run("echo $kept").stdout == "1\n"
    assert bash.run("break").ended == "finished"
    assert bash.run("ls").stdout == ""
    bash.put_file("a", "text")
    assert bash.run("cat a; rm a").stdout == "text"


def test_leaving_bash_ends_its_session(engine: Engine) -> None:
    with engine.session("bash", limits=LIMITS) as session:
        assert session.run("exit 4").ended == "died"
        assert session.death is not None
        assert (session.death.reason, session.death.detail) == ("exited", "its program ended with exit code 4")


@pytest.fixture(scope="module")
def javascript(engine: Engine) -> Iterator[Session]:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    with engine.session("javascript", limits=LIMITS.replace(memory_bytes=512 * MiB)) as session:
        yield session


JAVASCRIPT_CELLS = {
    "constants": ("const c = 5; let l = 6", "c + l", "11"),
    "functions": ("function f() { return 7 }", "f()", "7"),
    "classes": ("class A { m() { return 8 } }", "new A().m()", "8"),
    "await": ("const w = await Promise.resolve(9)", "w", "9"),
    "await_value": ("", "await new Promise(r => setTimeout(() => r('late'), 20))", "'late'"),
    "objects": ("", "[1, { a: 2 }]", "[ 1, { a: 2 } ]"),
    "require": ("const fs = require('fs')", "fs.readdirSync('.')", "[]"),
}


@pytest.mark.parametrize(("first", "then", "shown"), JAVASCRIPT_CELLS.values(), ids=JAVASCRIPT_CELLS.keys())
def test_javascript_cells_share_state(javascript: Session, first: str, then: str, shown: str) -> None:
    javascript.run(first)
    assert javascript.run(then).result == {"text/plain": shown}


def test_javascript_cells_end_well_or_say_how(javascript: Session) -> None:
    said = javascript.run("console.log('a'); console.error('b'); console.log('c')")
    assert [each.text for each in said.events if isinstance(each, Output)] == ["a\n", "b\n", "c\n"]
    for code, name in {"nope()": "ReferenceError", "(": "SyntaxError", "throw new TypeError('t')": "TypeError"}.items():
        error = javascript.run(code).error
        assert error is not None
        assert error.name == name
        assert "session.js" not in error.traceback
    javascript.run("const kept = 1")
    assert javascript.run("while (true) {}", timeout=0.5).ended == "timeout"
    assert javascript.run("await new Promise(() => {})", timeout=0.5).ended == "timeout"
    assert javascript.run("kept").result == {"text/plain": "1"}
