"""Keys, projects, quotas and the audit log: nobody sees or does what is not theirs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fumehood.server.ids import new_id
from tests.testing.served import KEY, Served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("data")) as served:
        yield served


class Clients:
    """Clients of one server, each with a key of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._open = [self._client(KEY)]
        self.admin = self._open[0]

    def _client(self, key: str) -> httpx.Client:
        return httpx.Client(base_url=self._url, headers={"authorization": f"Bearer {key}"}, timeout=60)

    def project(self, **quotas: int) -> httpx.Client:
        """Make a project with quotas; return a client with a key of it that may do all but administer."""
        project = self.admin.post("/v1/projects", json={"name": new_id(), "quotas": quotas}).json()
        return self.key(self.admin, project_id=project["id"])

    def key(self, by: httpx.Client, **values: Any) -> httpx.Client:
        """Make a key; return a client with it."""
        answer = by.post("/v1/keys", json={"name": "n", **values})
        assert answer.status_code == 200, answer.text
        self._open.append(self._client(answer.json()["key"]))
        return self._open[-1]

    def close(self) -> None:
        for each in self._open:
            each.close()


@pytest.fixture
def clients(served: Served) -> Iterator[Clients]:
    clients = Clients(served.url)
    yield clients
    clients.close()


#: What each scope opens: one request of each endpoint that changes or shows something.
REQUESTS = [
    ("execute", "POST", "/v1/execute", {"code": "1"}), ("execute", "POST", "/v1/execute-function", {"code": "def execute(i): 1"}),
    ("execute", "POST", "/v1/executions", {"code": "1"}), ("execute", "POST", "/v1/batches", {"programs": []}),
    ("execute", "POST", "/v1/tools/none/execute", {}), ("execute", "POST", "/v1/sessions", {"language": "none"}),
    ("execute", "DELETE", "/v1/sessions/none", None), ("execute", "POST", "/v1/sessions/none/cells", {"code": "1"}),
    ("execute", "POST", "/v1/sessions/none/interrupt", None), ("execute", "POST", "/v1/sessions/none/restart", None),
    ("execute", "POST", "/v1/sessions/none/fork", None), ("execute", "POST", "/v1/sessions/none/checkpoints", None),
    ("execute", "POST", "/v1/sessions/none/restore", {"checkpoint_id": "x"}), ("execute", "PUT", "/v1/sessions/none/network", {}),
    ("execute", "PUT", "/v1/sessions/none/files/x", None), ("execute", "DELETE", "/v1/sessions/none/checkpoints/x", None),
    ("read", "GET", "/v1/tools", None), ("read", "GET", "/v1/secrets", None), ("read", "GET", "/v1/runtimes", None),
    ("read", "GET", "/v1/executions", None), ("read", "GET", "/v1/usage", None), ("read", "GET", "/v1/sessions", None),
    ("read", "GET", "/v1/sessions/none", None), ("read", "GET", "/v1/sessions/none/files", None),
    ("read", "GET", "/v1/sessions/none/files/x", None), ("read", "GET", "/v1/sessions/none/cells/x/events", None),
    ("read", "GET", "/v1/executions/none", None), ("read", "GET", "/v1/languages", None),
    ("manage", "POST", "/v1/tools", {"code": "1", "language": "python", "name": "n"}), ("manage", "DELETE", "/v1/tools/none", None),
    ("manage", "POST", "/v1/tools/none", {}), ("manage", "POST", "/v1/secrets", {"name": "n", "value": "v"}),
    ("manage", "DELETE", "/v1/secrets/none", None), ("manage", "DELETE", "/v1/runtimes/none", None),
    ("manage", "POST", "/v1/runtimes/none/revisions", {"manifest_file": {"name": "requirements.txt", "contents": ""}}),
    ("manage", "DELETE", "/v1/executions/none", None),
    ("keys", "GET", "/v1/keys", None), ("keys", "DELETE", "/v1/keys/none", None), ("keys", "GET", "/v1/audit", None),
    ("admin", "GET", "/v1/projects", None), ("admin", "PUT", "/v1/projects/none/quotas", {}),
]  # fmt: skip


def test_a_key_does_what_its_scopes_say_and_nothing_else(clients: Clients) -> None:
    scopes = ("execute", "read", "manage", "keys", "admin")
    by_scope = {scope: clients.key(clients.admin, scopes=[scope]) for scope in scopes}
    for scope, method, path, body in REQUESTS:
        for held, client in by_scope.items():
            status = client.request(method, path, json=body).status_code
            assert (status != 403) == (held == scope), (method, path, held, status)
            assert status in (200, 400, 403, 404)


def test_a_key_gives_no_more_than_it_has(clients: Clients) -> None:
    weak = clients.key(clients.admin, scopes=["keys", "read"])
    refused = weak.post("/v1/keys", json={"name": "n", "scopes": ["read", "execute"]})
    assert refused.status_code == 400
    assert "execute" in refused.json()["message"]
    assert clients.key(weak, scopes=["read"]).get("/v1/tools").status_code == 200
    other = clients.admin.post("/v1/projects", json={"name": "elsewhere"}).json()["id"]
    assert weak.post("/v1/keys", json={"name": "n", "scopes": ["read"], "project_id": other}).status_code == 404


@pytest.mark.parametrize("key", ["short", " ends with a blank ", "tab\there", "x" * 5000])
def test_a_key_that_cannot_be_sent_or_is_guessed_is_refused(clients: Clients, key: str) -> None:
    assert clients.admin.post("/v1/keys", json={"name": "n", "key": key}).status_code == 400


def test_a_key_of_ones_own_may_have_blanks_and_is_shown_once(clients: Clients) -> None:
    made = clients.admin.post("/v1/keys", json={"name": "own", "key": "my very own key"}).json()
    assert made["key"] == "my very own key"
    listed = clients.admin.get("/v1/keys")
    assert "my very own key" not in listed.text
    assert made["id"] in [each["id"] for each in listed.json()["keys"]]
    assert clients.admin.post("/v1/keys", json={"name": "own", "key": "my very own key"}).status_code == 400
    again = httpx.get(clients.admin.base_url.join("/v1/tools"), headers={"authorization": "Bearer my very own key"})
    assert again.status_code == 200


def test_a_revoked_key_opens_nothing_from_then_on(clients: Clients) -> None:
    client = clients.key(clients.admin, scopes=["read"])
    assert client.get("/v1/tools").status_code == 200
    listed = clients.admin.get("/v1/keys").json()["keys"]
    assert clients.admin.delete(f"/v1/keys/{listed[-1]['id']}").json()["deleted"]
    assert client.get("/v1/tools").json() == {"code": 16, "message": "unauthenticated"}
    assert clients.admin.delete(f"/v1/keys/{listed[-1]['id']}").status_code == 404


def test_a_project_sees_nothing_of_another(clients: Clients) -> None:
    one, other = clients.project(), clients.project()
    tool = one.post("/v1/tools", json={"code": "def execute(i): return i", "language": "python", "name": "t"}).json()[
        "id"
    ]
    secret = one.post("/v1/secrets", json={"name": "s", "value": "v"}).json()["id"]
    manifest = {"manifest_file": {"name": "requirements.txt", "contents": ""}}
    runtime = one.post("/v1/runtimes", json={"name": "r", "language": "python", **manifest}).json()
    execution = one.post("/v1/execute", json={"code": "1", "language": "python"}).json()["id"]
    session = one.post("/v1/sessions", json={}).json()["id"]
    checkpoint = one.post(f"/v1/sessions/{session}/checkpoints").json()["id"]
    cell = one.post(f"/v1/sessions/{session}/cells", json={"code": "1"}).json()["id"]
    key = one.get("/v1/keys").json()["keys"][0]["id"]
    mine = other.post("/v1/sessions", json={}).json()["id"]
    for method, path, body in [
        ("GET", f"/v1/tools/{tool}", None), ("POST", f"/v1/tools/{tool}", {}), ("POST", f"/v1/tools/{tool}/execute", {}),
        ("DELETE", f"/v1/tools/{tool}", None), ("DELETE", f"/v1/secrets/{secret}", None), ("DELETE", f"/v1/keys/{key}", None),
        ("GET", f"/v1/runtimes/{runtime['id']}", None), ("DELETE", f"/v1/runtimes/{runtime['id']}", None),
        ("GET", f"/v1/runtimes/{runtime['id']}/revisions", None), ("POST", f"/v1/runtimes/{runtime['id']}/revisions", manifest),
        ("GET", f"/v1/runtimes/{runtime['id']}/revisions/{runtime['revision_id']}", None),
        ("GET", f"/v1/runtimes/{runtime['id']}/revisions/{runtime['revision_id']}/log", None),
        ("GET", f"/v1/executions/{execution}", None), ("GET", f"/v1/executions/{execution}/connections", None),
        ("DELETE", f"/v1/executions/{execution}", None), ("GET", f"/v1/sessions/{session}", None),
        ("DELETE", f"/v1/sessions/{session}", None), ("POST", f"/v1/sessions/{session}/cells", {"code": "1"}),
        ("GET", f"/v1/sessions/{session}/cells/{cell}", None), ("GET", f"/v1/sessions/{session}/cells/{cell}/events", None),
        ("GET", f"/v1/sessions/{session}/files", None), ("PUT", f"/v1/sessions/{session}/files/x", None),
        ("POST", f"/v1/sessions/{session}/fork", None), ("POST", f"/v1/sessions/{session}/interrupt", None),
        ("POST", f"/v1/sessions/{mine}/restore", {"checkpoint_id": checkpoint}),
        ("DELETE", f"/v1/sessions/{session}/checkpoints/{checkpoint}", None),
    ]:  # fmt: skip
        answer = other.request(method, path, json=body)
        assert answer.status_code == 404, (method, path, answer.text)
        assert answer.json()["code"] == 5
    for path, name in [
        ("tools", "tools"),
        ("secrets", "secrets"),
        ("runtimes", "runtimes"),
        ("executions?all=true", "data"),
    ]:
        assert other.get(f"/v1/{path}").json()[name] == []
    assert [each["id"] for each in other.get("/v1/sessions").json()["sessions"]] == [mine]
    body = {"code": "1", "language": "python"}
    revision = {**body, "runtime_revision_id": runtime["revision_id"]}
    for path, named in [("/v1/execute", revision), ("/v1/executions", {**body, "language": runtime["revision_id"]}),
                        ("/v1/executions", {**body, "language": f"rt-{runtime['revision_id'].lower()}"})]:  # fmt: skip
        assert other.post(path, json=named).status_code == 400
    stored = {"host": "a.example", "credential": {"kind": "bearer", "token": {"stored_secret": secret}}}
    assert other.post("/v1/executions", json={"code": "1", "network": {"allow": [stored]}}).status_code == 400
    env = [{"name": "A", "secret_id": secret}]
    tool = other.post("/v1/tools", json={"code": "def execute(i): return i", "language": "python", "name": "t"}).json()[
        "id"
    ]
    assert other.post(f"/v1/tools/{tool}/execute", json={"env": env}).status_code == 404
    for each, client in ((session, one), (mine, other)):
        client.delete(f"/v1/sessions/{each}")


# Quotas


def is_over(answer: httpx.Response, what: str) -> bool:
    if answer.status_code != 429:
        return False
    assert answer.json()["code"] == 8
    assert what in answer.json()["message"]
    assert int(answer.headers["retry-after"]) >= 1
    return True


def test_requests_over_a_minutes_are_a_429(clients: Clients) -> None:
    client = clients.project(requests_per_minute=30)
    seen = [is_over(client.get("/v1/tools"), "30 requests a minute") for _each in range(40)]
    assert seen[:30] == [False] * 30
    assert sum(seen[30:]) >= 8
    time.sleep(2.2)
    assert not is_over(client.get("/v1/tools"), "")


def test_more_executions_at_one_time_are_a_429(clients: Clients) -> None:
    client = clients.project(concurrency=1)
    session = client.post("/v1/sessions", json={}).json()["id"]
    waits = {"code": "import time; time.sleep(1)"}
    first = threading.Thread(target=client.post, args=("/v1/executions",), kwargs={"json": waits})
    first.start()
    time.sleep(0.4)
    assert is_over(client.post("/v1/execute", json={"code": "1"}), "1 executions at one time")
    assert is_over(client.post(f"/v1/sessions/{session}/cells", json={"code": "1"}), "1 executions at one time")
    first.join()
    assert client.post(f"/v1/sessions/{session}/cells", json={"code": "1"}).status_code == 200
    client.delete(f"/v1/sessions/{session}")


def test_processor_seconds_over_a_days_are_a_429_until_midnight(clients: Clients) -> None:
    client = clients.project(cpu_seconds_per_day=1)
    burns = {"code": "import time\nwhile time.process_time() < 1.1: pass"}
    assert client.post("/v1/executions", json=burns).json()["exit_code"] == 0
    answer = client.post("/v1/execute", json={"code": "1"})
    assert is_over(answer, "1 processor seconds a day")
    assert int(answer.headers["retry-after"]) <= 86_400
    used = client.get("/v1/usage").json()
    assert 1.0 <= used["cpu_seconds"] < 2.0
    assert (used["executions"], used["quotas"]["cpu_seconds_per_day"]) == (1, 1)


def test_bytes_over_what_may_be_stored_are_a_429_until_some_are_deleted(clients: Clients) -> None:
    client = clients.project(stored_bytes=100_000)
    body = {"code": "#" * 99_990, "language": "python", "name": "n"}
    tool = client.post("/v1/tools", json=body).json()["id"]
    assert client.post("/v1/execute", json={"code": "print(1)"}).status_code == 200
    for path, more in [("/v1/tools", body), ("/v1/secrets", {"name": "n", "value": "v"}), ("/v1/execute", {"code": "1"}),
                       (f"/v1/tools/{tool}", {"name": "m"})]:  # fmt: skip
        assert is_over(client.post(path, json=more), "100000 bytes in store")
    assert client.delete(f"/v1/tools/{tool}").status_code == 200
    assert client.post("/v1/execute", json={"code": "1"}).status_code == 200


def test_quotas_are_changed_and_count_at_once(clients: Clients) -> None:
    client = clients.project()
    project = client.get("/v1/usage").json()["project_id"]
    assert client.post("/v1/execute", json={"code": "1"}).status_code == 200
    changed = clients.admin.put(f"/v1/projects/{project}/quotas", json={"concurrency": 0})
    assert changed.json()["quotas"]["concurrency"] == 0
    assert is_over(client.post("/v1/execute", json={"code": "1"}), "0 executions")
    assert clients.admin.put("/v1/projects/none/quotas", json={}).status_code == 404
    assert clients.admin.put(f"/v1/projects/{project}/quotas", json={"concurrency": -1}).status_code == 400


# The audit log


def test_who_changed_what_is_written_down(clients: Clients) -> None:
    client = clients.project()
    tool = client.post("/v1/tools", json={"code": "1", "language": "python", "name": "the tool"}).json()["id"]
    client.post(f"/v1/tools/{tool}", json={"name": "renamed"})
    secret = client.post("/v1/secrets", json={"name": "the secret", "value": "correct-horse"}).json()["id"]
    client.delete(f"/v1/secrets/{secret}")
    client.delete(f"/v1/tools/{tool}")
    manifest = {"manifest_file": {"name": "requirements.txt", "contents": ""}}
    runtime = client.post("/v1/runtimes", json={"name": "r", "language": "python", **manifest}).json()
    client.post(f"/v1/runtimes/{runtime['id']}/revisions", json=manifest)
    client.delete(f"/v1/runtimes/{runtime['id']}")
    execution = client.post("/v1/execute", json={"code": "1", "language": "python"}).json()["id"]
    client.delete(f"/v1/executions/{execution}")
    client.delete(f"/v1/executions/{execution}")  # there is none any more
    key = client.post("/v1/keys", json={"name": "n", "scopes": ["read"]}).json()["id"]
    client.delete(f"/v1/keys/{key}")
    answer = client.get("/v1/audit")
    entries = answer.json()["entries"]
    assert [(each["action"], each["object"]) for each in entries] == [
        ("key.revoke", key), ("key.create", key), ("execution.delete", execution), ("runtime.delete", runtime["id"]),
        ("runtime.revise", runtime["id"]), ("runtime.create", runtime["id"]), ("tool.delete", tool), ("secret.delete", secret),
        ("secret.create", secret), ("tool.update", tool), ("tool.create", tool),
    ]  # fmt: skip
    assert len({each["key_id"] for each in entries}) == 1
    assert "correct-horse" not in answer.text
    assert (
        client.get("/v1/audit", params={"limit": 2, "starting_after": entries[1]["id"]}).json()["entries"]
        == entries[2:4]
    )
    # As everywhere: who has no last id sends an empty one.
    assert client.get("/v1/audit", params={"starting_after": ""}).json()["entries"] == entries


def test_what_an_administrator_changes_is_written_down(clients: Clients) -> None:
    project = clients.admin.post("/v1/projects", json={"name": new_id()}).json()["id"]
    clients.admin.put(f"/v1/projects/{project}/quotas", json={"concurrency": 3})
    entries = clients.admin.get("/v1/audit", params={"limit": 2}).json()["entries"]
    assert [(each["action"], each["object"]) for each in entries] == [
        ("project.quotas", project),
        ("project.create", project),
    ]
    assert "'concurrency': 3" in entries[0]["detail"]


def test_a_start_with_a_key_that_was_revoked_says_so_and_serves_nobody(tmp_path: Path) -> None:
    with (
        Served(tmp_path) as served,
        httpx.Client(base_url=served.url, headers={"authorization": f"Bearer {KEY}"}) as client,
    ):
        other = client.post("/v1/keys", json={"name": "n", "scopes": ["keys", "admin"]}).json()["key"]
        (first,) = [
            each["id"] for each in client.get("/v1/keys").json()["keys"] if each["name"] == "given at the start"
        ]
        assert client.delete(f"/v1/keys/{first}", headers={"authorization": f"Bearer {other}"}).status_code == 200
    with pytest.raises(AssertionError, match="was revoked: give another by FUMEHOOD_API_KEY, or leave it out"):
        Served(tmp_path).__enter__()
    with Served(tmp_path, key="another key") as served:
        answer = httpx.get(f"{served.url}/v1/tools", headers={"authorization": "Bearer another key"})
        assert answer.status_code == 200
