"""Databases of each kind, for what must be the same on all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fumehood.server.ids import new_id
from tests.testing.postgres import MISSING, Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL, for all tests together."""
    if MISSING:
        pytest.skip(MISSING)
    with Postgres() as postgres:
        yield postgres


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The options by which `fumehood serve` keeps what it keeps in a fresh database."""
    if request.param == "sqlite":
        return ()
    server: Postgres = request.getfixturevalue("postgres")
    return "--database", server.url(f"d{new_id().lower()}")
