"""`fumehood model serve`: a model's files over HTTP, by the engine in this process or by another server."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..protocol.loopback import is_loopback
from .arguments import Arguments, Option, UsageError, seconds
from .listening import count_number, listening, port_number
from .terminal import note, printable

if TYPE_CHECKING:
    import socket

    from ..models.engine import Engine

HOST, PORT = "127.0.0.1", 8000
# A wire's longest.
_LONGEST_WAIT_SECONDS = 7200
# What is on its way when Ctrl-C comes may end by itself within this time.
_GRACE_SECONDS = 5


def serve(arguments: Arguments) -> int:
    """Do the command."""
    if not arguments.model:
        raise UsageError("say which model: fumehood model serve --model FOLDER, the one with its config.json")
    key = _key(arguments.key_env, arguments.host)
    if arguments.engine != "transformers":
        from .model_launch import launch  # noqa: PLC0415 - it loads the checks

        return launch(arguments, key)
    if arguments.print:
        raise UsageError("--print is for the other engines' commands: this one runs in this process")
    gc.enable()  # commands do without, but this one lives
    folder = Path(arguments.model).expanduser()
    with listening(arguments.host, PORT if arguments.port is None else arguments.port) as listener:
        # Before the model is loaded, so that a wrong folder is named at once and not after the imports.
        from ..models.files import checked  # noqa: PLC0415 - this command alone pays for these

        checked(folder)
        note(printable(f"fumehood: loading {folder}"))
        from ..models.engine import Engine  # noqa: PLC0415
        from ..models.loading import load  # noqa: PLC0415

        model = load(folder, context=arguments.context, device=arguments.device)
        with Engine(model, at_once=arguments.at_once, cache_tokens=arguments.cache) as engine:
            _serve(engine, listener, arguments.name or model.name, key)
    return 0


def _serve(engine: Engine, listener: socket.socket, name: str, key: str | None) -> None:
    import uvicorn  # noqa: PLC0415 - as above

    from ..models.api import make  # noqa: PLC0415

    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
    note(printable(f"fumehood: serving {name} ({engine.model.context} tokens) at {url}; Ctrl-C ends it"))
    app = make(engine, name=name, key=key)
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE_SECONDS)
    uvicorn.Server(config).run(sockets=[listener])


def _key(variable: str | None, host: str) -> str | None:
    if variable is not None:
        key = os.environ.get(variable, "")
        if not key:
            raise ConfigurationError(f"--key-env {variable}: there is no such environment variable, or it is empty")
        return key
    if not is_loopback(host):
        raise ConfigurationError(
            f"--host {host} can be reached from elsewhere: give a key by --key-env VARIABLE, which callers then need"
        )
    return None


def _wait(text: str) -> float:
    value = seconds(text)
    if not 0 < value <= _LONGEST_WAIT_SECONDS:
        raise ValueError(f"write more than 0, at most {_LONGEST_WAIT_SECONDS}")
    return value


def _extent(text: str) -> str:
    if text not in ("critical", "all", "none"):
        raise ValueError("write critical, all or none")
    return text


DESCRIPTION = (
    "serve: load the model in the folder that --model names, and answer OpenAI's chat completions with it, whole and "
    "streamed: tools, JSON by a schema, pictures. It needs the extra `transformers`. With --engine another server is found at its "
    "usual port, or started with the flags that the model needs, by what this machine has. It is waited for, verified, and "
    "written into the configuration, so that `fumehood ask` uses it; one that was started ends with this command. What is known "
    "to stay wrong with it is said on standard error. Exit code, at its end: 0, or 1, 3, 4 where the worst failure is minor, "
    "major, critical; 69: it did not answer in time; 71: it ended by itself."
)
OPTIONS = (
    Option(name="engine", metavar="NAME", default="transformers",
           help="transformers (in this process), vllm, sglang, llama.cpp, ollama or lmstudio."),
    Option(name="print", help="Print the command of another engine, with its flags, and start nothing."),
    Option(name="wait", metavar="SECONDS", default=1800.0, convert=_wait,
           help="How long another engine may take until it answers, with what it fetches (1800)."),
    Option(name="verify", metavar="CHECKS", default="critical", convert=_extent,
           help="Which checks another engine is put to: critical, all or none (critical)."),
    Option(name="no-config", help="Leave the configuration as it is."),
    Option(name="log", metavar="FILE", help="Add another engine's output to this file instead of passing it on."),
    Option(name="name", metavar="NAME", help="What callers name it; the folder's name unless given."),
    Option(name="host", metavar="ADDRESS", default=HOST, help=f"Where to listen ({HOST})."),
    Option(name="port", metavar="N", convert=port_number,
           help=f"The port ({PORT}, or the other engine's usual one); 0 for any free one."),
    Option(name="context", metavar="TOKENS", convert=int,
           help="Prompt and answer together (the model's own, or what another engine has memory for)."),
    Option(name="at-once", metavar="N", default=8, convert=count_number, help="Answers at one time (8); others wait."),
    Option(name="cache", metavar="TOKENS", convert=int,
           help="Of all answers together, which bounds their memory (the context, or 8192 for each at one time)."),
    Option(name="device", metavar="NAME", help="Where torch computes, like cpu or cuda:1; an accelerator where there is one."),
)  # fmt: skip
EXAMPLES = (
    "fumehood model serve --model ./Devstral-Small-2-24B-Instruct-2512 --name devstral",
    "fumehood model serve --engine vllm --model mistralai/Devstral-Small-2-24B-Instruct-2512 --print",
    "fumehood model serve --engine llama.cpp --model ./devstral-small-2-q4.gguf --name devstral",
    "fumehood model serve --model ./devstral --host 0.0.0.0 --key-env DEVSTRAL_KEY --context 65536",
)
