"""Sessions of the service under many threads, in this process: what is forgotten by one is looked at by another."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from fumehood import Engine
from fumehood.errors import SessionDead
from fumehood.protocol.limits import Limits
from fumehood.server.faults import Fault
from fumehood.server.live_sessions import LiveSession
from fumehood.server.service import Service, Settings
from fumehood.server.store.common import Caller
from fumehood.server.store.database import Database
from fumehood.server.store.keeping import Store
from fumehood.server.vault import Vault
from tests.testing.served import KEY


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("data")
    database = Database(f"sqlite:///{folder / 'server.db'}")
    store = Store(database, Vault.open(folder))
    store.keys.first(KEY, "first")
    with Engine() as engine:
        service = Service(engine, store, Settings(sessions=50_000, at_once=2))
        yield service
        service.close()
    database.close()


@pytest.fixture
def caller(service: Service) -> Caller:
    caller = service.store.keys.caller(KEY)
    assert caller is not None
    return caller


@pytest.fixture
def impatient() -> Iterator[None]:
    """Threads take turns as often as can be."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def begun(service: Service, caller: Caller) -> LiveSession:
    return service.sessions.create(
        caller, "python", limits=Limits(), env={}, files={}, network=None, idle_seconds=60, lifetime_seconds=60
    )


@pytest.mark.usefixtures("impatient")
def test_sessions_are_begun_while_others_are_deleted(service: Service, caller: Caller) -> None:
    # Thousands of one: it takes many deletions until one falls into the moment in which another thread counts.
    session = begun(service, caller).session
    held = [service.sessions._keep(LiveSession(caller, session)) for _each in range(20_000)]
    stop = threading.Event()

    def begin() -> None:
        # The room for one more is asked for as often as can be; what is begun in it does not matter here.
        while not stop.is_set():
            with service.sessions._room(1, caller):
                pass

    with ThreadPoolExecutor(3) as threads:
        beginning = [threads.submit(begin) for _each in range(3)]
        try:
            for live in held:
                service.sessions.delete(caller, live.id)
        finally:
            stop.set()
        for each in beginning:
            each.result()
    for live in service.sessions.listed(caller):
        service.sessions.delete(caller, live.id)


def test_a_checkpoint_of_a_session_that_is_deleted_meanwhile_is_not_kept(service: Service, caller: Caller) -> None:
    live = begun(service, caller)
    with ThreadPoolExecutor(1) as threads:
        making = [threads.submit(live.checkpoint) for _each in range(20)]
        making[2].result()
        service.sessions.delete(caller, live.id)
        ends = [each.exception() for each in making]
    assert ends[0] is None
    assert isinstance(ends[-1], Fault | SessionDead)
    assert live.checkpoints() == []


def test_a_cell_whose_thread_cannot_be_had_gives_its_place_back(service: Service, caller: Caller) -> None:
    live = begun(service, caller)
    kept = []  # else the garbage collector gives the places back
    usual = threading.stack_size(1 << 47)  # more than a process can address
    try:
        for _each in range(3):  # places are two
            with pytest.raises((RuntimeError, MemoryError)) as caught:
                service.sessions.run(caller, live, "print(1)", None, "native")
            kept.append(caught)
    finally:
        threading.stack_size(usual)
    assert service.gate.running_now(caller.project_id) == 0
    cell = service.sessions.run(caller, live, "print(1)", None, "native")
    assert cell.wait()["stdout"] == "1\n"
    service.sessions.delete(caller, live.id)


def test_a_checkpoint_that_is_one_too_many_does_nothing_to_the_session(service: Service, caller: Caller) -> None:
    live = begun(service, caller)
    for _each in range(20):
        service.sessions.checkpoint(caller, live)
    code = "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    assert service.sessions.run(caller, live, code, None, "native").wait()["ok"]
    with pytest.raises(Fault, match="has 20 checkpoints: delete one") as caught:
        service.sessions.checkpoint(caller, live)
    assert (caught.value.status, live.session.lost) == (429, ())
    told = service.sessions.run(caller, live, "print(threading.active_count())", None, "native").wait()["stdout"]
    assert int(told) >= 2
    service.sessions.delete(caller, live.id)
