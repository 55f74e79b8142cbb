"""What the whole suite needs of the process that it runs in."""

from __future__ import annotations

import signal

import pytest

# A shell's background jobs start with Ctrl-C ignored, and so would every command that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the one test of two minutes begin first, beside tests of other things: its attacks get through, as they must."""
    items.sort(key=lambda item: item.path.name != "test_self.py")
