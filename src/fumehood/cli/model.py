"""`fumehood model`: serve a model's files, and prove a model's server right."""

from __future__ import annotations

from . import model_serve, model_verify
from .arguments import Arguments, Command, Option, UsageError

_ACTIONS = {"serve": model_serve.serve, "verify": model_verify.verify}
_OPTIONS = {"serve": model_serve.OPTIONS, "verify": model_verify.OPTIONS}
#: Of verify's, what serve takes too: it verifies the other engines' servers.
_SHARED = {"json", "timeout", "tokenizer", "system-prompt", "server", "isolation", "without"}


def model(arguments: Arguments) -> int:
    """Do the command."""
    action = _ACTIONS.get(arguments.action or "")
    if action is None:
        given = f", not {arguments.action!r}" if arguments.action else ""
        raise UsageError(f"say what to do: fumehood model {' or '.join(_ACTIONS)}{given}")
    _refuse_the_others(arguments)
    return action(arguments)


def _refuse_the_others(arguments: Arguments) -> None:
    """Raise `UsageError` for an option of another action: what it was to do would not be done."""
    own = _SHARED | {option.name for option in _OPTIONS[arguments.action]}
    for action, options in _OPTIONS.items():
        for option in options:
            if option.name in arguments.given - own:
                raise UsageError(
                    f"--{option.name} is an option of `fumehood model {action}`, and not of `fumehood model {arguments.action}`: "
                    "leave it out"
                )


COMMAND = Command(
    name="model",
    summary="Serve a model's files over HTTP, or prove that a model server speaks right.",
    description=f"{model_serve.DESCRIPTION}\n\n{model_verify.DESCRIPTION}",
    run=model,
    positionals=(("ACTION", "serve or verify."),),
    options=(
        Option(name="model", short="m", metavar="MODEL",
               help="serve: the folder with the model's files; for other engines a hub's name, a .gguf file, or their own name "
               "for it. verify: the model's name there."),
        Option(name="key-env", metavar="VAR",
               help="The environment variable that holds the key: which callers of serve then need, or which verify sends."),
        *model_serve.OPTIONS,
        *model_verify.OPTIONS,
    ),
    examples=(*model_serve.EXAMPLES, *model_verify.EXAMPLES),
)  # fmt: skip
