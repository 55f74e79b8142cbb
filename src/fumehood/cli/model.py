"""`fumehood model`: what is done with a model's server."""

from __future__ import annotations

from .arguments import Arguments, Command, UsageError
from .model_verify import DESCRIPTION, EXAMPLES, OPTIONS, verify

_ACTIONS = {"verify": verify}


def model(arguments: Arguments) -> int:
    """Do the command."""
    action = _ACTIONS.get(arguments.action or "")
    if action is None:
        given = f", not {arguments.action!r}" if arguments.action else ""
        raise UsageError(f"say what to do: fumehood model {' or '.join(_ACTIONS)}{given}")
    return action(arguments)


COMMAND = Command(
    name="model",
    summary="Prove that a model server speaks right, or name what it gets wrong.",
    description=DESCRIPTION,
    run=model,
    positionals=(("ACTION", "verify."),),
    options=OPTIONS,
    examples=EXAMPLES,
)
