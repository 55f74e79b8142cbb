"""`fumehood model`: what is done with a model's files."""

from __future__ import annotations

from .arguments import Arguments, Command, UsageError
from .model_serve import DESCRIPTION, EXAMPLES, OPTIONS, serve

_ACTIONS = {"serve": serve}


def model(arguments: Arguments) -> int:
    """Do the command."""
    action = _ACTIONS.get(arguments.action or "")
    if action is None:
        given = f", not {arguments.action!r}" if arguments.action else ""
        raise UsageError(f"say what to do: fumehood model {' or '.join(_ACTIONS)}{given}")
    return action(arguments)


COMMAND = Command(
    name="model",
    summary="Serve a model's files over HTTP.",
    description=DESCRIPTION,
    run=model,
    positionals=(("ACTION", "serve."),),
    options=OPTIONS,
    examples=EXAMPLES,
)
