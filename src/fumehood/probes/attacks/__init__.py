"""The attacks: one file a class. Each function states in its probe what it tries, and runs that for real."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import (
    egress,
    files,
    files_in,
    files_out,
    forgery,
    forks,
    hostile_forks,
    kernel_files,
    kernel_memory,
    kernel_surface,
    languages,
    leftovers,
    memory,
    network,
    output,
    processes,
    sessions,
)

if TYPE_CHECKING:
    from ..suite import Suite

_MODULES = (
    files, files_in, files_out, memory, kernel_memory, processes, kernel_surface, kernel_files, network, egress, languages, output,
    forgery, sessions, forks, hostile_forks, leftovers,
)  # fmt: skip
#: Every class of attacks by its name, in the order in which they are run.
SUITES: dict[str, Suite] = {module.SUITE.name: module.SUITE for module in _MODULES}
