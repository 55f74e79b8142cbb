"""What is this machine, and what only looks like it."""

from __future__ import annotations

import pytest

from fumehood.protocol.loopback import leads_here


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "127.8.9.10", "[::1]:8000"])
def test_loopback_is_this_machine(host: str) -> None:
    assert leads_here(f"http://{host}/v1")


@pytest.mark.parametrize(
    "host",
    [
        "127.evil.com",
        "127.0.0.1.evil.com",
        "localhost.evil.com",
        "0.0.0.0",
        "10.0.0.1",
        "",
        "[::1",
        "127.0.0.1@evil.com",
    ],
)
def test_what_looks_like_loopback_is_not(host: str) -> None:
    assert not leads_here(f"http://{host}/v1")
