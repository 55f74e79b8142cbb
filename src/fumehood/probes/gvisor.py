"""What inside gVisor is otherwise than on Linux: which probes read answers that it gives in other words, what it does not stop.

By the beginnings of probes' names, each with the reason.
"""

from __future__ import annotations

_ITS_MEMORY = "it lies in gVisor's own memory, which counts as the sandbox's"
_ITS_PROCESSES = "processes are gVisor's own: the host sees none to look for"
_NO_SIGNALS = "a fatal signal is told as an exit code above 128"

#: Shows nothing there.
UNLIKE = {
    "files.the_library_folder": "gVisor answers EACCES where Linux answers EROFS",
    "files.the_root_and_etc": "gVisor answers EACCES where Linux answers EROFS",
    "files.a_library_that_is_open": "gVisor answers EPERM where Linux answers EROFS",
    "files.dev_holds_five": "devices are gVisor's own, seven",
    "files_out.pipes_and_sockets": "pipes and sockets are not on the host's disk",
    "memory.a_flood_of_entries_ends_at_the_limit[pipes]": _ITS_MEMORY,
    "memory.a_flood_of_entries_ends_at_the_limit[sockets]": _ITS_MEMORY,
    "memory.a_flood_of_entries_ends_at_the_limit[files without": "gVisor has no files without a name",
    "memory.pipes_cannot_grow": _ITS_MEMORY,
    "memory.no_core_file": "gVisor writes no core files",
    "memory.the_stack_cannot": _NO_SIGNALS,
    "memory.shared_memory_ends_at_the_limit": "gVisor cannot map or allocate files of the host's there",
    "kernel_memory.a_flood_of_kernel_objects": "gVisor has no limit of pending signals to set",
    "kernel_memory.locks_on_files": _ITS_MEMORY,
    "kernel_memory.a_flood_of_multicast": _ITS_MEMORY,
    "kernel_memory.mappings_count": _ITS_MEMORY,
    "forgery.odd_bytes": "gVisor writes a part where Linux writes all",
    "processes.a_bomb_stops": "gVisor needs so much memory for each process that it is out of memory first",
    "processes.a_slowed_process_1": _ITS_PROCESSES,
    "processes.no_priority_can": "priorities are gVisor's own",
    "processes.there_is_no_terminal": "terminals are gVisor's own",
    "network.a_port_at_the_hosts_own_address": "gVisor answers EHOSTUNREACH where Linux answers ENETUNREACH",
    "network.going_outside": "gVisor answers EHOSTUNREACH where Linux answers ENETUNREACH, and counts nothing",
    "network.no_name_is_resolved": "attempts are not counted",
    "network.a_clouds_metadata": "gVisor answers EHOSTUNREACH where Linux answers ENETUNREACH, and counts nothing",
    "network.nobody_else_can_be_named": "numbers of users and processes are gVisor's own",
    "output.a_flood_is_cut_and_ended[into a pipe made wider": "gVisor has no pipes of packets",
    "sessions.a_cell_that_cannot_be_interrupted": "an interrupt goes to every process",
    "sessions.a_flood_is_bounded": "an interrupt takes so long that it may come to the next cell",
    "sessions.daemons_of_a_session": _ITS_PROCESSES,
    "sessions.a_restart_leaves": _ITS_PROCESSES,
    "sessions.nothing_is_left": _ITS_PROCESSES,
    "forks.": "sessions cannot be forked",
    "hostile_forks.": "sessions cannot be forked",
}  # fmt: skip

#: Not stopped there.
OPEN = dict.fromkeys(
    (
        "forgery.a_signal_to_oneself", "forgery.words_of_the_kernel", "forgery.a_forged_report", "forgery.fatal_signals",
        "forgery.a_late_signal", "forgery.words_about_other_limits", "sessions.a_death_has_its_reason",
    ),
    _NO_SIGNALS,
)  # fmt: skip


def reason(table: dict[str, str], name: str) -> str | None:
    """Return what a table says of a probe's name."""
    return next((why for beginning, why in table.items() if name.startswith(beginning)), None)
