"""The compiled seccomp filters, one file a processor and tier, made by `scripts/filters` from `syscalls.py`."""

from __future__ import annotations

import os

_HERE = os.path.dirname(os.path.abspath(__file__))


def path(machine: str, *, sampled: bool) -> str:
    """Return the file of the filter for a machine; `sampled` where no cgroup counts memory."""
    return os.path.join(_HERE, f"{machine}{'-sampled' if sampled else ''}.bpf")


def load(machine: str, *, sampled: bool) -> bytes:
    """Return the filter as an array of struct sock_filter."""
    with open(path(machine, sampled=sampled), "rb") as file:
        return file.read()
