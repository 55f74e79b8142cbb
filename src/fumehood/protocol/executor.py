"""The port through which every door and the agent reach code execution."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .execution import ExecutionRequest, ExecutionResult, Stream

#: Called as `listener(stream, piece)` for each piece of output as it arrives, in order within a stream.
OutputListener = Callable[["Stream", bytes], None]


class Executor(Protocol):
    """Runs programs. The local engine is one, the remote executor of `client` another; a cluster executor is to follow."""

    def execute(self, request: ExecutionRequest, *, on_output: OutputListener | None = None) -> ExecutionResult:
        """Run to the end and return the result.

        Raises an error of `fumehood.errors` where the request, the host or we are at fault.
        """
        ...
