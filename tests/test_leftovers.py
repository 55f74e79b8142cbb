"""Of an engine's work nothing is left: no descriptor, cgroup, mount, thread or process.

What this process holds is counted, so no other engine may be at work here: these tests share none with others.
"""

from __future__ import annotations

import pytest

from fumehood import Engine, ExecutionRequest, Limits, Session
from fumehood.protocol.limits import MiB
from tests.testing.leftovers import assert_nothing_is_left, settled

# It counts, or kills, what belongs to this process: nothing else may come and go meanwhile.
pytestmark = pytest.mark.alone

LIMITS = Limits(wall_seconds=20, cpu_seconds=60, memory_bytes=512 * MiB)
COLD_AND_WARM = pytest.mark.parametrize("warm_bytes", [0, 256 * MiB], ids=["cold", "warm"])


@COLD_AND_WARM
def test_nothing_is_left_of_many_runs(warm_bytes: int) -> None:
    before = settled()
    with Engine(warm_bytes=warm_bytes) as engine:
        for number in range(20):
            engine.execute(ExecutionRequest(code=f"import os\nos.fork()\nprint({number})"))
    assert_nothing_is_left(before)


@COLD_AND_WARM
def test_nothing_is_left_of_many_sessions(warm_bytes: int) -> None:
    before = settled()
    with Engine(warm_bytes=warm_bytes) as engine:
        for _ in range(6):
            with engine.session() as session:
                session.run("import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True)")
        abandoned = engine.session()
        abandoned.run("1")
    assert_nothing_is_left(before)


@COLD_AND_WARM
def test_nothing_is_left_of_many_copies_at_once(warm_bytes: int) -> None:
    with Engine(warm_bytes=warm_bytes) as engine:
        with engine.session(limits=LIMITS) as session:
            session.fork()[0].close()  # what an engine keeps, it has now
        before = settled()
        with engine.session(limits=LIMITS) as session:
            session.run("import os; x = 5")
            copies = session.fork(40)
            assert {_value(each, "x") for each in copies} == {"5"}
            assert len({_value(each, "os.urandom(4)") for each in copies}) == 40
            for each in copies:
                each.close()
        assert_nothing_is_left(before)


def _value(session: Session, code: str) -> str:
    result = session.run(code).result
    assert result is not None
    return str(result["text/plain"])
