"""Reads a command's arguments from a table of options, and writes its help from the same table.

argparse takes 6 ms to import and click 25, where a cold `fumehood run` has 25 in all for two interpreters and a
sandbox (docs/decisions/0004-start-up-time.md). The rules are GNU's: `--name value`, `--name=value`, `-n value`, `-nvalue`,
options anywhere before `--`. Abbreviated names are not guessed.
"""

from __future__ import annotations

from ..errors import FumehoodError
from ..protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class UsageError(FumehoodError):
    """The user's fault: arguments that the command does not take."""

    exit_code = 2


class Option(Record):
    """One option. Without `metavar` it is a switch; `many` collects a list; `convert` may raise ValueError."""

    name: str
    help: str
    short: str | None = None
    metavar: str | None = None
    many: bool = False
    default: Any = None
    convert: Callable[[str], Any] = str


class Command(Record):
    """One command: what its help says, what it takes, and the function that does it and returns the exit code.

    `positionals` are (metavar, help) pairs, as many words as there are pairs at most; with `rest` the words after them are
    collected under "rest".
    """

    name: str
    summary: str
    run: Callable[[Arguments], int]
    description: str = ""
    options: tuple[Option, ...] = ()
    positionals: tuple[tuple[str, str], ...] = ()
    rest: tuple[str, str] | None = None
    examples: tuple[str, ...] = ()


class Arguments:
    """What was given, by the option's name with underscores, or the positional's metavar in lower case.

    `given` has the names of the options that stood there, also where they say what is usual.
    """

    def __init__(self, values: dict[str, Any], given: frozenset[str]) -> None:
        self.given = given
        self._values = values

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(name) from None


def seconds(text: str) -> float:
    """Convert an option's value. Raises ValueError saying what to write."""
    try:
        return float(text)
    except ValueError:
        raise ValueError("write a number of seconds") from None


def size(text: str) -> int:
    """Convert an option's value into bytes. Raises ValueError saying what to write."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    digits = text.upper().removesuffix("IB").removesuffix("B")
    unit = units.get(digits[-1:], 0)
    if unit:
        digits = digits[:-1]
    if not digits.isdigit():
        raise ValueError("write a number of bytes, or one with K, M or G, like 256M")
    return int(digits) * (unit or 1)


HELP = Option(name="help", short="h", help="Show this and exit.")


def parse(command: Command, words: Sequence[str]) -> Arguments | None:
    """Return the arguments; None where help was asked for. Raises `UsageError` with the next step in its text."""
    options = (*command.options, HELP)
    values: dict[str, Any] = {
        _key(option.name): ([] if option.many else option.default if option.metavar else False) for option in options
    }
    plain: list[str] = []
    given = set()
    pending = list(words)
    while pending:
        word = pending.pop(0)
        if word == "--":
            plain += pending
            break
        if word == "-" or not word.startswith("-"):
            plain.append(word)
            # What follows a program's name belongs to the program.
            if command.rest is not None and len(plain) >= len(command.positionals):
                plain += pending[1:] if pending[:1] == ["--"] else pending
                break
            continue
        given.add(_take(command, options, values, word, pending))
    if values["help"]:
        return None
    _place(command, values, plain)
    return Arguments(values, frozenset(given))


def _take(command: Command, options: tuple[Option, ...], values: dict[str, Any], word: str, pending: list[str]) -> str:
    """Take an option, and its value; return its name."""
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        option = next((each for each in options if each.name == name), None)
        attached = value if equals else None
    else:
        option = next((each for each in options if each.short == word[1]), None)
        attached = word[2:] or None
    if option is None:
        known = ", ".join(f"--{each.name}" for each in options)
        raise UsageError(f"fumehood {command.name} has no option {word!r}; it has {known}")
    key = _key(option.name)
    if option.metavar is None:
        if attached is not None:
            raise UsageError(f"--{option.name} takes no value, not {attached!r}")
        values[key] = True
        return option.name
    if attached is None:
        if not pending:
            raise UsageError(f"--{option.name} needs a value: {option.metavar}")
        attached = pending.pop(0)
    try:
        converted = option.convert(attached)
    except ValueError as error:
        raise UsageError(f"--{option.name} {attached!r}: {error}") from error
    values[key] = [*values[key], converted] if option.many else converted
    return option.name


def _place(command: Command, values: dict[str, Any], plain: list[str]) -> None:
    for metavar, _help in command.positionals:
        values[_key(metavar.lower())] = plain.pop(0) if plain else None
    if command.rest is not None:
        values["rest"] = plain
    elif plain:
        raise UsageError(
            f"fumehood {command.name} does not know what to do with {plain[0]!r}; see fumehood {command.name} --help"
        )


def _key(name: str) -> str:
    return name.replace("-", "_")


def help_text(command: Command) -> str:
    """Return the command's help, 80 columns wide."""
    words = [
        f"fumehood {command.name}",
        "[OPTIONS]",
        *(f"[{metavar}]" for metavar, _help in command.positionals),
    ]
    if command.rest is not None:
        words.append(f"[{command.rest[0]}]…")
    lines = [f"Usage: {' '.join(words)}", ""]
    for paragraph in (command.description or command.summary).split("\n\n"):
        lines += [*_wrap(paragraph, 80), ""]
    described = [*command.positionals, *([command.rest] if command.rest else [])]
    if described:
        lines += ["Arguments:", *_table(described), ""]
    lines += [
        "Options:",
        *_table([(_spelling(each), _option_help(each)) for each in (*command.options, HELP)]),
    ]
    if command.examples:
        lines += ["", "Examples:", *(f"  {example}" for example in command.examples)]
    return "\n".join(lines) + "\n"


def _spelling(option: Option) -> str:
    short = f"-{option.short}, " if option.short else "    "
    return f"{short}--{option.name}" + (f" {option.metavar}" if option.metavar else "")


def _option_help(option: Option) -> str:
    return f"{option.help} Can be given several times." if option.many else option.help


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = min(28, max(len(left) for left, _right in rows))
    lines: list[str] = []
    for left, right in rows:
        wrapped = _wrap(right, 76 - width)
        fits = len(left) <= width
        if not fits:
            lines.append(f"  {left}")
        lines.append(f"  {left if fits else '':<{width}}  {wrapped[0]}")
        lines += [f"  {'':<{width}}  {more}" for more in wrapped[1:]]
    return lines


def _wrap(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
