"""The compiled seccomp filters, one file a processor, profile and tier, made by `scripts/filters` from `syscalls.py`."""

from __future__ import annotations

import os

_HERE = os.path.dirname(os.path.abspath(__file__))


def path(machine: str, profile: str, *, sampled: bool) -> str:
    """Return the file of the filter for a machine and profile; `sampled` where no cgroup counts memory."""
    return os.path.join(_HERE, f"{machine}-{profile}{'-sampled' if sampled else ''}.bpf")


def load(machine: str, profile: str, *, sampled: bool) -> bytes:
    """Return the filter as an array of struct sock_filter."""
    with open(path(machine, profile, sampled=sampled), "rb") as file:
        return file.read()
