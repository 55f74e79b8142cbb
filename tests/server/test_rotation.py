"""A new key for the service: secrets are read by it, the old one opens none of them, API keys go on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from rizaio import Riza

from fumehood.errors import ConfigurationError
from fumehood.server.rotation import rotate
from fumehood.server.store.database import Database
from fumehood.server.store.keeping import Store
from fumehood.server.vault import Vault
from tests.testing.served import FUMEHOOD, KEY, Served

TOKEN = "correct-horse-battery-staple"


def rotated(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FUMEHOOD, "serve", "--rotate-server-key"], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "XDG_DATA_HOME": str(folder), **environment},
    )  # fmt: skip


def test_a_service_goes_on_with_a_new_key_and_the_old_one_opens_nothing(tmp_path: Path) -> None:
    file = tmp_path / "fumehood" / "server" / "server.key"
    with Served(tmp_path) as served, Riza(base_url=served.url, api_key=KEY) as client:
        secret = client.secrets.create(name="s", value=TOKEN)
        tool = client.tools.create(
            code="import os\ndef execute(_): return os.environ['S']", language="python", name="reads"
        )
        (first,) = file.read_text().split()
        busy = rotated(tmp_path)
        assert (busy.returncode, "a server works with the keys" in busy.stderr) == (78, True)
        assert file.read_text().split() == [first]
    answer = rotated(tmp_path)
    assert (answer.returncode, answer.stdout) == (0, "")
    assert "1 stored secrets" in answer.stderr
    second, oldest = file.read_text().split()
    assert (oldest, second != first) == (first, True)
    assert oct(file.stat().st_mode)[-3:] == "600"
    assert [each.name for each in file.parent.iterdir() if "server.key" in each.name] == ["server.key"]
    # Once more: the one in between is dropped.
    assert rotated(tmp_path).returncode == 0
    third, oldest = file.read_text().split()
    assert oldest == first
    assert third not in (first, second)
    with Served(tmp_path) as served, Riza(base_url=served.url, api_key=KEY) as client:
        assert client.tools.exec(tool.id, env=[{"name": "S", "secret_id": secret.id}]).output == TOKEN
    database = Database(f"sqlite:///{file.parent / 'server.db'}")
    store = Store(database, Vault([third, first]))
    caller = store.keys.caller(KEY)
    assert caller is not None
    for old in (first, second):
        with pytest.raises(ConfigurationError, match="another key"):
            Store(database, Vault([old])).secrets.text(caller.project_id, secret.id)
    database.close()


def test_a_rotation_ends_every_visit_of_the_dashboard_and_no_key(tmp_path: Path) -> None:
    with Served(tmp_path) as served, httpx.Client(base_url=served.url) as visitor:
        assert visitor.post("/login", data={"key": KEY}).status_code == 303
        assert visitor.get("/keys").status_code == 200
        cookies = dict(visitor.cookies)
    assert rotated(tmp_path).returncode == 0
    with Served(tmp_path) as served, httpx.Client(base_url=served.url, cookies=cookies) as visitor:
        answer = visitor.get("/keys")
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/keys")
        assert visitor.get("/v1/tools", headers={"authorization": f"Bearer {KEY}"}).status_code == 200


def test_a_rotation_that_was_broken_off_can_be_read_and_done_again(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'server.db'}")
    store = Store(database, Vault.open(tmp_path))
    store.keys.first(KEY, "first")
    caller = store.keys.caller(KEY)
    assert caller is not None
    kept = [store.secrets.add(caller, "a", TOKEN)]
    # As it lies between the first step and the second: a new key that nothing is encrypted with yet.
    shutil.copy(tmp_path / "server.key", tmp_path / "old")
    before = (tmp_path / "old").read_text()
    (tmp_path / "server.key").write_text("8cozhW9kSi5poZ6TWFuMCVBMWqGVJuGEHlBXVRZ1NzA=\n" + before)
    store = Store(database, Vault.open(tmp_path))
    kept.append(store.secrets.add(caller, "b", TOKEN))
    assert store.keys.caller(KEY) == caller
    assert rotate(tmp_path, database) == 2
    store = Store(database, Vault.open(tmp_path))
    assert [store.secrets.text(caller.project_id, each.id) for each in kept] == [TOKEN, TOKEN]
    assert store.keys.caller(KEY) == caller
    database.close()


@pytest.mark.parametrize(
    ("environment", "says"),
    [({"FUMEHOOD_SERVER_KEY": "8cozhW9kSi5poZ6TWFuMCVBMWqGVJuGEHlBXVRZ1NzA="}, "FUMEHOOD_SERVER_KEY"), ({}, "no ")],
    ids=["given by the environment", "never served"],
)
def test_a_key_that_is_not_there_to_be_changed_is_refused(
    tmp_path: Path, environment: dict[str, str], says: str
) -> None:
    answer = rotated(tmp_path, **environment)
    assert (answer.returncode, answer.stdout) == (78, "")
    assert says in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "fumehood" / "server" / "server.key").exists()
