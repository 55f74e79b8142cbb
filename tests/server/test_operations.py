"""What those see who look after a service: readiness, metrics, the log, traces; and what they must not see."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fumehood.engine import Engine
from fumehood.server import logs
from fumehood.server.ids import new_id
from fumehood.server.retention import Retention
from fumehood.server.service import Service
from fumehood.server.store.common import written
from fumehood.server.store.database import Database
from fumehood.server.store.executions import Execution
from fumehood.server.store.keeping import Store
from fumehood.server.vault import Vault
from tests.testing.collector import Collector
from tests.testing.outside import NameServer
from tests.testing.postgres import MISSING, Postgres
from tests.testing.served import KEY, Served

#: What must be in no log, no metric and no span.
PLANTED = "planted-4f1c"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def client(served: Served, key: str = KEY) -> httpx.Client:
    return httpx.Client(base_url=served.url, headers={"authorization": f"Bearer {key}"}, timeout=60)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with (
        NameServer({"good.test": [["93.184.215.14"]]}) as names,
        Served(tmp_path_factory.mktemp("data"), FUMEHOOD_NAMESERVER=names.address) as served,
    ):
        yield served


@pytest.fixture(scope="module")
def api(served: Served) -> Iterator[httpx.Client]:
    with client(served) as api:
        yield api


def ended(served: Served) -> list[str]:
    """Stop a service and return the lines of its log."""
    served.process.terminate()
    _out, log = served.process.communicate(timeout=20)
    lines: list[str] = log.splitlines()
    return lines


# Readiness


def test_a_service_that_can_work_says_so_without_a_key(served: Served) -> None:
    answer = httpx.get(f"{served.url}/readyz")
    assert (answer.status_code, answer.json()) == (
        200, {"status": "ready", "database": "ok", "walls": "ok", "builder": "ok"}
    )  # fmt: skip


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_a_database_that_is_gone_is_told_within_seconds_and_so_is_its_return(tmp_path: Path) -> None:
    with Postgres() as postgres, Served(tmp_path, "--database", postgres.url()) as served:
        assert httpx.get(f"{served.url}/readyz").status_code == 200
        postgres.stop()
        time.sleep(1.1)
        began = time.monotonic()
        answer = httpx.get(f"{served.url}/readyz", timeout=20)
        assert (answer.status_code, answer.json()["database"], answer.json()["walls"]) == (503, "down", "ok")
        assert time.monotonic() - began < 4
        assert httpx.get(f"{served.url}/healthz").status_code == 200
        postgres.start()
        time.sleep(1.1)
        assert httpx.get(f"{served.url}/readyz").json()["database"] == "ok"


def test_walls_that_do_not_hold_and_a_builder_that_does_not_work_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bin" / "runsc"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
    database = Database(f"sqlite:///{tmp_path / 'server.db'}")
    with Engine(isolation="gvisor") as engine:
        service = Service(engine, Store(database, Vault.open(tmp_path)))
        assert service.readiness.parts() == {"database": True, "walls": False, "builder": False}
        service.close()
    database.close()


# Metrics


def counted(text: str, name: str, **labels: str) -> float:
    """Return a sample's value; 0 where there is none."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_what_runs_is_counted_by_door_language_and_reason(served: Served, api: httpx.Client) -> None:
    before = api.get("/metrics").text
    for code in ("print(1)", "import sys; sys.exit(3)"):
        assert api.post("/v1/execute", json={"code": code, "language": "python"}).status_code == 200
    assert api.post("/v1/execute", json={"code": "1", "language": "cobol"}).status_code == 400
    body = {"code": "while True: pass", "limits": {"wall_seconds": 0.2}}
    assert api.post("/v1/executions", json=body).json()["reason"] == "timeout"
    session = api.post("/v1/sessions", json={}).json()["id"]
    assert api.post(f"/v1/sessions/{session}/cells", json={"code": "1"}).status_code == 200
    meanwhile = httpx.get(f"{served.url}/metrics").text
    assert counted(meanwhile, "fumehood_sessions_live") == 1
    assert counted(meanwhile, "fumehood_executions_running") == 0
    assert "\nfumehood_sandboxes_warm " in meanwhile
    assert api.delete(f"/v1/sessions/{session}").status_code == 200
    after = api.get("/metrics").text

    def more(name: str, **labels: str) -> float:
        return counted(after, name, **labels) - counted(before, name, **labels)

    assert more("fumehood_executions_total", door="riza", language="python", reason="exited") == 2
    assert more("fumehood_executions_total", door="native", reason="timeout") == 1
    assert more("fumehood_executions_total") == 4
    assert more("fumehood_execution_duration_seconds_count", door="native") == 2
    assert 0.2 <= more("fumehood_execution_duration_seconds_sum", door="native") < 5
    assert more("fumehood_requests_total", route="/v1/execute", method="POST", status="200") == 2
    assert more("fumehood_requests_total", route="/v1/execute", status="400") == 1
    assert more("fumehood_requests_total", route="/v1/sessions/{session_id}", method="DELETE", status="200") == 1
    assert more("fumehood_request_duration_seconds_count", route="/v1/execute", method="POST") == 3
    assert counted(after, "fumehood_sessions_live") == 0


def test_one_that_runs_is_seen_while_it_runs(served: Served, api: httpx.Client) -> None:
    session = api.post("/v1/sessions", json={}).json()["id"]
    stream = {"accept": "text/event-stream"}
    with api.stream("POST", f"/v1/sessions/{session}/cells", json={"code": "input()"}, headers=stream) as cell:
        assert next(cell.iter_lines()) == "event: cell"
        assert counted(httpx.get(f"{served.url}/metrics").text, "fumehood_executions_running") == 1
        api.delete(f"/v1/sessions/{session}")
    assert counted(httpx.get(f"{served.url}/metrics").text, "fumehood_executions_running") == 0


def test_what_the_proxy_refuses_is_counted(api: httpx.Client) -> None:
    code = "import urllib.request as u\ntry: u.urlopen('http://evil.test/')\nexcept OSError: pass"
    body = {"code": code, "network": {"allow": [{"host": "good.test"}]}}
    answer = api.post("/v1/executions", json=body).json()
    assert answer["refusals"], answer
    assert counted(api.get("/metrics").text, "fumehood_egress_refusals_total") == len(answer["refusals"])


def test_builds_are_counted_by_status(api: httpx.Client) -> None:
    manifest = {"name": "requirements.txt", "contents": ""}
    made = api.post("/v1/runtimes", json={"name": "r", "language": "python", "manifest_file": manifest})
    assert made.status_code == 200, made.text
    assert counted(api.get("/metrics").text, "fumehood_builds") == 1
    assert api.delete(f"/v1/runtimes/{made.json()['id']}").status_code == 200


def test_nothing_that_a_caller_writes_becomes_a_label(api: httpx.Client) -> None:
    for _time in range(2):
        api.request(PLANTED.upper(), f"/{PLANTED}")
        api.get(f"/v1/tools/{PLANTED}", params={PLANTED: PLANTED})
        api.post("/v1/execute", json={"code": PLANTED, "language": PLANTED})
    text = api.get("/metrics").text
    assert PLANTED not in text.lower()
    assert counted(text, "fumehood_requests_total", route="/v1/tools/{tool_id}", status="404") == 2


@pytest.mark.parametrize(
    "headers",
    [{"host": "evil.test"}, {"x-forwarded-for": "127.0.0.1"}, {"forwarded": "for=127.0.0.1"}, {"via": "1.1 proxy"}],
    ids=["rebound name", "proxy", "proxy by standard", "via"],
)
def test_metrics_are_open_to_this_machine_itself_alone(served: Served, headers: dict[str, str]) -> None:
    assert httpx.get(f"{served.url}/metrics").status_code == 200
    assert httpx.get(f"{served.url}/metrics", headers=headers).status_code == 401
    headers = {**headers, "authorization": f"Bearer {KEY}"}
    assert httpx.get(f"{served.url}/metrics", headers=headers).status_code == 200


def test_where_others_reach_it_metrics_need_a_key_that_may_read(tmp_path: Path) -> None:
    with Served(tmp_path, "--host", "0.0.0.0", "--log-format", "none") as served, client(served) as api:
        assert httpx.get(f"{served.url}/metrics").status_code == 401
        for scope, status in (("execute", 403), ("read", 200)):
            key = api.post("/v1/keys", json={"name": "n", "scopes": [scope]}).json()["key"]
            with client(served, key) as other:
                assert other.get("/metrics").status_code == status
        assert ended(served) == []
    with Served(tmp_path, "--host", "0.0.0.0", "--metrics-open") as served:
        assert httpx.get(f"{served.url}/metrics").status_code == 200


# The log


def test_each_request_is_a_line_of_json_that_says_who_asked_for_what(tmp_path: Path) -> None:
    with Served(tmp_path) as served, client(served) as api:
        project = api.get("/v1/usage").json()["project_id"]
        assert api.get("/v1/tools/x", headers={"x-request-id": "mine-7"}).headers["x-request-id"] == "mine-7"
        made = httpx.get(f"{served.url}/v1/tools", headers={"x-request-id": f"{PLANTED}\tx y"}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9A-Z]{26}", made)
        assert httpx.post(f"{served.url}/mcp").status_code == 401
        lines = [json.loads(line) for line in ended(served)]
    usage, tool, refused, model = lines
    assert (model["route"], model["door"]) == ("/mcp", "mcp")
    assert {name: tool[name] for name in ("level", "event", "request_id", "method", "route", "status", "door")} == {
        "level": "info", "event": "request", "request_id": "mine-7", "method": "GET", "route": "/v1/tools/{tool_id}",
        "status": 404, "door": "riza",
    }  # fmt: skip
    assert (tool["project_id"], tool["key_id"]) == (project, usage["key_id"])
    assert usage["door"] == "tenants"
    assert abs(dt.datetime.fromisoformat(tool["time"]) - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
    assert 0 <= tool["duration_ms"] < 5000
    assert (refused["status"], refused["request_id"], "key_id" in refused) == (401, made, False)


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_line_holds_code_input_output_secrets_headers_or_queries(tmp_path: Path, form: str) -> None:
    planted = f"{PLANTED}-in"
    with Served(tmp_path, "--log-format", form) as served, client(served) as api:
        program = {
            "code": f"print({planted!r})\nraise ValueError({planted!r})",
            "stdin": planted,
            "env": {"A": planted},
        }
        api.post("/v1/execute", json={"language": "python", **program})
        api.post("/v1/executions", json={**program, "files": [{"path": planted, "text": planted}]})
        api.post("/v1/executions", json={planted: planted})
        api.get(f"/v1/tools/{planted}", params={"q": planted}, headers={"x-a": planted, "user-agent": planted})
        api.get(f"/{planted}", headers={"cookie": planted, "referer": planted})
        api.post("/v1/secrets", json={"name": planted, "value": planted})
        httpx.get(served.url + "/v1/tools", headers={"authorization": f"Bearer {planted}"})
        session = api.post("/v1/sessions", json={}).json()["id"]
        api.post(f"/v1/sessions/{session}/cells", json={"code": f"print({planted!r}); 1/0"})
        api.put(f"/v1/sessions/{session}/files/{planted}", content=planted.encode())
        # A fault of the service's own: what it kept cannot be read.
        ran = api.post("/v1/execute", json={"language": "python", "code": "1"}).json()["id"]
        with sqlite3.connect(next(tmp_path.rglob("server.db"))) as database:
            database.execute("UPDATE executions SET request = ? WHERE id = ?", (planted, ran))
        database.close()
        assert api.get(f"/v1/executions/{ran}").status_code == 500
        log = "\n".join(ended(served))
    assert log.count("/v1/execut") >= 5
    assert "JSONDecodeError" in log
    assert "executions.py" in log
    assert PLANTED not in log
    assert KEY not in log


def test_errors_are_told_by_class_and_place_and_other_libraries_words_not_at_all() -> None:
    reader, writer = os.pipe()
    with logs.to(writer, "json"):
        logging.getLogger("library").warning("got %s", PLANTED)
        try:
            try:
                int(PLANTED)
            except ValueError as error:
                raise RuntimeError(PLANTED) from error
        except RuntimeError:
            logging.getLogger("fumehood.server").exception("a request failed")
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        library, failed = [json.loads(line) for line in file]
    assert library["place"].startswith("test_operations.py:")
    assert PLANTED not in json.dumps([library, failed])
    assert (failed["message"], failed["level"]) == ("a request failed", "error")
    assert failed["errors"][0].startswith("builtins.RuntimeError: test_operations.py:")
    assert failed["errors"][1].startswith("builtins.ValueError: ")


def test_who_does_not_read_the_log_holds_nobody_up(tmp_path: Path) -> None:
    with Served(tmp_path) as served, client(served) as api:
        # A pipe holds 64 KiB.
        for _time in range(600):
            assert api.get("/healthz").status_code == 200
        assert len(ended(served)) == 600


# Traces


def test_spans_of_requests_and_executions_reach_a_collector_and_hold_nothing_of_the_programs(tmp_path: Path) -> None:
    # FastAPI has spans of its own, with paths and queries in them: they must not come even where they are asked for.
    own = {"FASTAPI_OTEL_AUTO_CONFIGURE": "true"}
    with Collector() as collector:
        with Served(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **own) as served, client(served) as api:
            parent = {"traceparent": f"00-{TRACE}-{PARENT}-01", "user-agent": PLANTED}
            program = {"code": f"raise ValueError({PLANTED!r})", "stdin": PLANTED}
            api.post("/v1/executions", params={PLANTED: PLANTED}, json=program, headers=parent)
            stream = api.post("/v1/executions", json=program, headers={**parent, "accept": "text/event-stream"})
            assert "event: result" in stream.text
            api.post("/v1/batches", json={"programs": [program, program]}, headers=parent)
            session = api.post("/v1/sessions", json={}).json()["id"]
            api.post(f"/v1/sessions/{session}/cells", json={"code": "1/0"}, headers=parent)
            api.get(f"/v1/tools/{PLANTED}", params={"q": PLANTED})
            ended(served)
        spans = collector.spans
        assert not [body for body in collector.bodies if PLANTED.encode() in body]
    assert set(collector.paths) == {"/v1/traces"}
    assert {each.resource["service.name"] for each in spans} == {"fumehood"}
    by_id = {each.id: each for each in spans}
    executions = [each for each in spans if each.name == "execution"]
    assert len(executions) == 5
    for each in executions:
        assert each.trace.hex() == TRACE
        assert by_id[each.parent].parent.hex() == PARENT
        assert (each.attributes["fumehood.language"], each.attributes["fumehood.door"]) == ("python", "native")
        assert each.attributes["fumehood.duration_seconds"] > 0
    assert {each.attributes["fumehood.reason"] for each in executions} == {"exited", "finished"}
    assert isinstance(executions[0].attributes["fumehood.warm"], bool)
    (tool,) = [each for each in spans if each.name == "GET /v1/tools/{tool_id}"]
    assert tool.attributes["http.response.status_code"] == 404
    assert not [each for each in spans if each.events]


def test_without_a_configuration_nothing_of_tracing_is_loaded() -> None:
    code = (
        "import sys, fumehood.server.app\nfrom fumehood.server import tracing\n"
        "assert tracing.set_up()._tracer is None\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


def test_a_tracer_provider_that_the_process_has_is_used() -> None:
    code = (
        "from opentelemetry import trace\nfrom opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter\n"
        "kept = InMemorySpanExporter(); provider = TracerProvider(); trace.set_tracer_provider(provider)\n"
        "provider.add_span_processor(SimpleSpanProcessor(kept))\n"
        "from fumehood.server import tracing\nmade = tracing.set_up()\n"
        "with made.execution('native', 'python') as mark: mark.facts(fumehood__reason='exited')\n"
        "(span,) = kept.get_finished_spans(); print(span.name, dict(span.attributes)['fumehood.reason'])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "execution exited\n"


@pytest.mark.parametrize(
    ("environment", "says"),
    [({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"), ({"OTEL_TRACES_EXPORTER": "none"}, ""),
     ({"OTEL_SDK_DISABLED": "true"}, "")],
    ids=["another protocol", "no exporter", "disabled"],
)  # fmt: skip
def test_a_configuration_that_asks_for_no_traces_gets_none(
    tmp_path: Path, environment: dict[str, str], says: str
) -> None:
    with Collector() as collector:
        with Served(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **environment) as served:
            httpx.get(f"{served.url}/v1/tools")
            log = [json.loads(line) for line in ended(served)]
        assert collector.bodies == []
    warnings = [each["message"] for each in log if each["event"] == "log"]
    assert len(warnings) == bool(says)
    assert says in "".join(warnings)


# What is kept


def test_old_executions_are_forgotten_and_what_was_used_stays_counted(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'server.db'}")
    store = Store(database, Vault.open(tmp_path))
    store.keys.first(KEY, "first")
    caller = store.keys.caller(KEY)
    assert caller is not None
    for days in (0, 1, 29.9, 30.1, 400):
        at = written(dt.datetime.now(dt.UTC) - dt.timedelta(days=days))
        made = Execution(
            id=new_id(), key_id=caller.key_id, door="native", kind="execution", language="python", started_at=at,
            duration_ms=1, cpu_ms=1000, exit_code=0, reason="exited",
        )  # fmt: skip
        store.executions.add(caller.project_id, made, (), ())

    def left() -> int:
        return len(store.executions.listed(caller.project_id, limit=100))

    assert (Retention(store, None).forget(), left()) == (0, 5)
    assert (Retention(store, 30).forget(), left()) == (2, 3)
    with Retention(store, 0):
        until = time.monotonic() + 10
        while left() and time.monotonic() < until:
            time.sleep(0.02)
    assert left() == 0
    assert store.keys.used(caller.project_id).executions == 5
    assert store.keys.used(caller.project_id).stored_bytes == 0
    database.close()


@pytest.mark.parametrize("days", ["-1", "nan", "x", ""])
def test_days_that_are_none_are_refused(tmp_path: Path, days: str) -> None:
    with pytest.raises(AssertionError, match="--keep-executions"), Served(tmp_path, "--keep-executions", days):
        pass
