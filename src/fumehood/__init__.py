"""Runs code that a model wrote, at once and behind the kernel's own walls, on a plain Linux machine.

    >>> import fumehood
    >>> fumehood.run("print(6 * 7)").stdout
    '42\\n'

`run`, `arun`, `session` and `Sandbox` use one engine a process; `Engine` gives you your own. Errors are in `fumehood.errors`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .client.executor import RemoteExecutor
    from .default_engine import Sandbox, arun, run, session
    from .engine import Engine
    from .errors import FumehoodError
    from .protocol.credentials import Basic, Bearer, Header, Query, StoredSecret
    from .protocol.execution import DeniedCall, ExecutionRequest, ExecutionResult, OutputFile, SkippedFile
    from .protocol.limits import Limits
    from .protocol.network import Allow, Connection, Network, Refusal
    from .protocol.session import CellError, CellResult, Cleared, Death, Display, Event, Output
    from .runtimes import languages
    from .sessions import Checkpoint, Session

__version__ = "0.1.0"

__all__ = [
    "Allow",
    "Basic",
    "Bearer",
    "CellError",
    "CellResult",
    "Checkpoint",
    "Cleared",
    "Connection",
    "Death",
    "DeniedCall",
    "Display",
    "Engine",
    "Event",
    "ExecutionRequest",
    "ExecutionResult",
    "FumehoodError",
    "Header",
    "Limits",
    "Network",
    "Output",
    "OutputFile",
    "Query",
    "Refusal",
    "RemoteExecutor",
    "Sandbox",
    "Session",
    "SkippedFile",
    "StoredSecret",
    "arun",
    "languages",
    "run",
    "session",
]

# Loaded when first asked for: a door pays for what it uses.
_HOMES = {
    "Allow": "protocol.network",
    "Basic": "protocol.credentials",
    "Bearer": "protocol.credentials",
    "CellError": "protocol.session",
    "CellResult": "protocol.session",
    "Checkpoint": "sessions",
    "Cleared": "protocol.session",
    "Connection": "protocol.network",
    "Death": "protocol.session",
    "DeniedCall": "protocol.execution",
    "Display": "protocol.session",
    "Engine": "engine",
    "Event": "protocol.session",
    "ExecutionRequest": "protocol.execution",
    "ExecutionResult": "protocol.execution",
    "FumehoodError": "errors",
    "Header": "protocol.credentials",
    "Limits": "protocol.limits",
    "Network": "protocol.network",
    "Output": "protocol.session",
    "OutputFile": "protocol.execution",
    "Query": "protocol.credentials",
    "Refusal": "protocol.network",
    "RemoteExecutor": "client.executor",
    "Sandbox": "default_engine",
    "Session": "sessions",
    "SkippedFile": "protocol.execution",
    "StoredSecret": "protocol.credentials",
    "arun": "default_engine",
    "languages": "runtimes",
    "run": "default_engine",
    "session": "default_engine",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'fumehood' has no attribute {name!r}; it has {', '.join(__all__)}")
    import importlib  # noqa: PLC0415 - as everything here: when asked for

    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
