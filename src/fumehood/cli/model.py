"""`fumehood model`: serve a model's files, in this process."""

from __future__ import annotations

from .arguments import Arguments, Command, UsageError
from .model_serve import EXAMPLES, OPTIONS, serve


def model(arguments: Arguments) -> int:
    """Do the command."""
    actions = {"serve": serve}
    action = actions.get(arguments.action or "")
    if action is None:
        raise UsageError(f"fumehood model {arguments.action or ''!r}: say {', '.join(actions)}")
    return action(arguments)


COMMAND = Command(
    name="model",
    summary="Serve a model's files over HTTP.",
    description=(
        "serve: load the model in the folder that --model names, and answer OpenAI's chat completions with it, whole and "
        "streamed: tools, JSON by a schema, pictures. It needs the extra `transformers`. With --engine another server is started "
        "instead, with the flags that the model needs; what is known to stay wrong with it is said on standard error."
    ),
    run=model,
    positionals=(("ACTION", "serve."),),
    options=OPTIONS,
    examples=EXAMPLES,
)
