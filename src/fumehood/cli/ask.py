"""`fumehood ask`: a question to a chat model that may run code behind the walls; the answer is printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Self

from ..agent import json_mode, loop
from ..agent.tools import ExecPython
from ..engine import Engine
from ..llm.choose import Surroundings, choose
from ..llm.scripted import ScriptedModel
from ..protocol.limits import Limits
from .arguments import Arguments, Command, Option, UsageError, seconds
from .network import OPTIONS, explain, network_of
from .progress import Building
from .server import ISOLATION, SERVER, isolation_of, remote
from .terminal import is_terminal, note, printable, wants_colour

if TYPE_CHECKING:
    from rich.live import Live
    from rich.markdown import Markdown


def ask(arguments: Arguments) -> int:
    """Do the command."""
    question = arguments.question
    if not question or not question.strip():
        raise UsageError('give a question: fumehood ask "What are the first 50 Fibonacci numbers?"')
    model = choose(arguments.model, Surroundings.of_this_process())
    if isinstance(model, ScriptedModel) and not arguments.json:
        print(
            f"This is {model.name}: its answers are written down, the code and its output are real.",
            flush=True,
        )
    elif not arguments.json:
        note(f"model: {printable(model.name)}")
    limits = Limits() if arguments.timeout is None else Limits(wall_seconds=arguments.timeout)
    tool = ExecPython(limits, network_of(arguments))
    with (
        remote(arguments)
        or Engine(without=arguments.without, isolation=isolation_of(arguments), notice=Building()) as executor,
        _shown(arguments) as view,
    ):
        if arguments.json_mode:
            transcript = json_mode.answer(question, model=model, executor=executor, observer=view, tool=tool)
        else:
            transcript = loop.answer(
                question, model=model, executor=executor, observer=view, tool=tool,
                max_turns=arguments.max_turns, stream=not arguments.no_stream,
            )  # fmt: skip
        view.answer(transcript.answer)
    explain(each for execution in transcript.executions for each in execution.refusals)
    if not arguments.json:
        for each in transcript.notes:
            note(f"noted: {printable(each.words)}")
    if transcript.cut_off:
        note("the answer ends here because the model's length limit cut it off")
    if arguments.json:
        print(json.dumps(transcript.as_json(), indent=2, ensure_ascii=is_terminal(1)))
    return 0


class _View:
    """Shows programs and their output beside the answer, on standard error; the answer is left to a subclass."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._dim, self._plain = ("\x1b[2m", "\x1b[0m") if wants_colour(2) else ("", "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.finish()

    def text(self, piece: str) -> None:
        """Hear a piece of the model's text: it may be the answer, or what is said before a program."""

    def code(self, code: str) -> None:
        """Show a program before it runs."""
        self.finish()
        self._show("running", code)

    def result(self, told: str) -> None:
        """Show what came of it."""
        self._show("output", told)

    def answer(self, text: str) -> None:
        """Show the answer."""
        self.finish()
        if not self._quiet:
            shown = printable(text) if is_terminal(1) else text
            print(shown.rstrip("\n"), flush=True)

    def finish(self) -> None:
        """End what is being drawn."""

    def _show(self, title: str, text: str) -> None:
        if not self._quiet:
            lines = "\n".join(f"  │ {line}" for line in printable(text.rstrip("\n")).split("\n"))
            note(f"{self._dim}{title}:\n{lines}{self._plain}")


class _LiveView(_View):
    """Draws the answer as Markdown while it streams in."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[str] = []
        self._live: Live | None = None

    def text(self, piece: str) -> None:
        self._pieces.append(printable(piece))
        if self._live is None:
            from rich.console import Console  # noqa: PLC0415 - 60 ms, for terminals alone
            from rich.live import Live  # noqa: PLC0415 - as above

            # Rendered a few times a second, not once a piece: the whole text is parsed each time. What is taller than
            # the terminal is cut while it grows, for lines that have scrolled away cannot be drawn anew; the end draws all.
            self._live = Live(console=Console(), refresh_per_second=8, get_renderable=self._markdown)
            self._live.start()

    def _markdown(self) -> Markdown:
        from rich.markdown import Markdown  # noqa: PLC0415 - as above

        # A link's target would be an escape sequence of the model's choice.
        return Markdown("".join(self._pieces), hyperlinks=False)

    def answer(self, text: str) -> None:
        if self._pieces:
            self.finish()
        else:
            super().answer(text)

    def finish(self) -> None:
        if self._live is not None:
            self._live.stop()
        self._live, self._pieces = None, []


def _shown(arguments: Arguments) -> _View:
    # Direct prompting streams nothing: its text is a program.
    if is_terminal(1) and not (arguments.json or arguments.json_mode):
        return _LiveView()
    return _View(quiet=arguments.json)


def _turns(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1000:
        raise ValueError("write a whole number from 1 to 1000")
    return int(text)


COMMAND = Command(
    name="ask",
    summary="Ask a chat model that may run code here.",
    description=(
        "Ask a chat model a question. It may run Python, as often as it likes, each program in a fresh sandbox that "
        "reaches the hosts of --allow-host and no others; programs and their output are shown on standard error, "
        "the answer on standard output. Without --model "
        "the configuration decides, then MISTRAL_API_KEY, then servers on this machine."
    ),
    run=ask,
    positionals=(("QUESTION", "What to ask, in quotes."),),
    options=(
        Option(name="model", short="m", metavar="KIND:NAME", help="Like mistral:devstral-small-latest, ollama:NAME, "
               "openai:NAME@URL, transformers:FOLDER, scripted:FILE or scripted:demo."),
        Option(name="json-mode", help="Direct prompting: the model writes one program as JSON, its output is the answer."),
        Option(name="json", help="Print the whole transcript with usage as JSON."),
        Option(name="timeout", short="t", metavar="SECONDS", convert=seconds, help="Wall time of each program (30)."),
        Option(name="max-turns", metavar="N", convert=_turns, default=loop.MAX_TURNS, help="Answers of the model (10)."),
        Option(name="no-stream", help="Take each answer whole."),
        *OPTIONS,
        SERVER,
        ISOLATION,
        Option(name="without", metavar="WALL", many=True, help="Give up a wall that this host cannot put up."),
    ),
    examples=(
        'fumehood ask "What is the 1000th prime?"',
        'fumehood ask --allow-host pypi.org "Which is the newest version of numpy?"',
        'fumehood ask --model scripted:demo "What are the first 50 Fibonacci numbers?"',
        'fumehood ask --model openai:devstral@http://127.0.0.1:8000/v1 --json "What is 2**100?"',
    ),
)  # fmt: skip
