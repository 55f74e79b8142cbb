"""Credentials on their way through the service: from callers and stored secrets to their host, and nowhere else."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rizaio import Riza

from tests.testing.outside import Authority, NameServer, Server
from tests.testing.served import KEY, Served

TOKEN = "correct-horse-battery-staple"
CODE = "import requests\nr = requests.get('https://good.test:{port}/here')\nprint(r.status_code)"


class Place:
    """A server that is allowed to reach another one on this machine, and that one."""

    def __init__(self, served: Served, outside: Server, folder: Path) -> None:
        self.served, self.outside, self.folder = served, outside, folder
        self.api = httpx.Client(base_url=served.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60)
        self.code = CODE.format(port=outside.port)
        #: A rule as Riza's clients write it.
        self.host = f"good.test:{outside.port}@127.0.0.0/8"

    def rule(self, credential: Any) -> dict[str, Any]:
        """Return a rule as our own API has it."""
        return {
            "host": "good.test",
            "ports": [self.outside.port],
            "addresses": ["127.0.0.0/8"],
            "credential": credential,
        }

    def secret(self) -> str:
        """Have it keep the token; return the secret's id."""
        return str(self.api.post("/v1/secrets", json={"name": "n", "value": TOKEN}).json()["id"])

    def arrived(self) -> dict[str, str]:
        """Return the headers of the one request that arrived, with its path."""
        (request,) = self.outside.requests
        self.outside.requests.clear()
        return {name.lower(): value for name, value in request.headers} | {"path": request.path}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    authority, folder = Authority(), tmp_path_factory.mktemp("data")
    with (
        authority.trusted(),
        NameServer({"good.test": [["127.0.0.1"]]}) as names,
        Server(context=authority.context("good.test")) as outside,
        Served(folder, "--allow-network", "127.0.0.0/8", FUMEHOOD_NAMESERVER=names.address) as served,
    ):
        place = Place(served, outside, folder)
        with place.api:
            yield place


WAYS = {
    "bearer": ({"bearer": {"token": TOKEN}}, ("authorization", f"Bearer {TOKEN}")),
    "basic": ({"basic": {"user_id": "u", "password": TOKEN}}, ("authorization", "Basic " + base64.b64encode(f"u:{TOKEN}".encode()).decode())),
    "header": ({"header": {"name": "X-Api-Key", "value": TOKEN}}, ("x-api-key", TOKEN)),
    "query": ({"query": {"key": "key", "value": TOKEN}}, ("path", f"/here?key={TOKEN}")),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_rizas_client_sends_a_credential_to_its_host(place: Place, way: str) -> None:
    auth, (name, value) = WAYS[way]
    with Riza(base_url=place.served.url, api_key=KEY, max_retries=0) as client:
        allow: Any = [{"host": place.host, "auth": auth}]
        answer = client.command.exec(language="python", code=place.code, http={"allow": allow})
    assert answer.stdout == "200\n", answer.stderr
    assert place.arrived()[name] == value
    kept = place.api.get(f"/v1/executions/{answer.id}").text
    assert TOKEN not in kept
    assert "***" in kept


def test_a_tool_is_given_stored_secrets(place: Place) -> None:
    code = f"import os\ndef execute(input):\n    exec({place.code!r})\n    return len(os.environ['A'])"
    tool = place.api.post("/v1/tools", json={"language": "python", "name": "t", "code": code}).json()["id"]
    secret = place.secret()
    body = {"env": [{"name": "A", "secret_id": secret}],
            "http": {"allow": [{"host": place.host, "auth": {"bearer": {"secret_id": secret}}}]}}  # fmt: skip
    answer = place.api.post(f"/v1/tools/{tool}/execute", json=body).json()
    assert answer["output"] == len(TOKEN), answer
    assert place.arrived()["authorization"] == f"Bearer {TOKEN}"


def test_our_own_api_takes_stored_secrets_for_programs_and_sessions(place: Place) -> None:
    network = {"allow": [place.rule({"kind": "bearer", "token": {"stored_secret": place.secret()}})]}
    answer = place.api.post("/v1/executions", json={"code": place.code, "network": network}).json()
    assert answer["stdout"] == "200\n", answer
    assert place.arrived()["authorization"] == f"Bearer {TOKEN}"
    begun = place.api.post("/v1/sessions", json={"network": network}).json()
    changed = place.api.post("/v1/sessions", json={}).json()
    assert place.api.put(f"/v1/sessions/{changed['id']}/network", json=network).status_code == 200
    for session in (begun, changed):
        cell = place.api.post(f"/v1/sessions/{session['id']}/cells", json={"code": place.code}).json()
        assert cell["stdout"] == "200\n", cell
        assert place.arrived()["authorization"] == f"Bearer {TOKEN}"
        lines = place.api.get(f"/v1/executions/{cell['id']}/connections").json()["connections"]
        assert [(each["host"], each["verdict"]) for each in lines] == [("good.test", "opened")]
    bad = place.api.put(
        f"/v1/sessions/{changed['id']}/network",
        json={"allow": [place.rule({"kind": "bearer", "token": {"stored_secret": "none"}})]},
    )
    assert (bad.status_code, bad.json()["kind"]) == (400, "InvalidRequest")


def test_no_credential_and_no_stored_secret_is_in_the_database_in_clear(place: Place) -> None:
    place.secret()
    files = [path for path in place.folder.rglob("server.db*") if path.is_file()]
    assert files
    for each in files:
        assert TOKEN.encode() not in each.read_bytes()


def test_a_network_that_the_operator_did_not_name_is_reached_by_nobody(place: Place) -> None:
    for host in ("good.test@10.0.0.0/8", "good.test@0.0.0.0/0", "good.test@126.0.0.0/7", "good.test@::1/128"):
        answer = place.api.post(
            "/v1/execute", json={"code": "1", "language": "python", "http": {"allow": [{"host": host}]}}
        )
        assert answer.status_code == 400
        assert "lets nobody reach" in answer.json()["message"]
