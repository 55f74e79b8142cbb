"""Shows what takes over a second: a bar on a terminal, one sentence elsewhere."""

from __future__ import annotations

from .terminal import is_terminal, note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.progress import Progress


class Building:
    """A `Notice` for the command line, on standard error."""

    def __init__(self) -> None:
        self._bar: Progress | None = None

    def __call__(self, sentence: str, done: float) -> None:
        """Show that `done`, a share from 0 to 1, of what the sentence names is done."""
        if not is_terminal(2):
            if done == 0:
                note(sentence)
            return
        if done >= 1:
            if self._bar is not None:
                self._bar.stop()
            self._bar = None
            return
        if self._bar is None:
            from rich.console import Console  # noqa: PLC0415 - 60 ms that only a build pays
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - likewise

            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task(sentence, total=1.0)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], description=sentence, completed=done)
