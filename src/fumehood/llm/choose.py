"""Chooses the model: what the user named, else the configuration, else what is there.

A model is named `mistral:MODEL`, `openai:MODEL@BASE_URL`, `ollama:MODEL` (likewise `lmstudio`, `llama.cpp`, `vllm`, `sglang`,
each with its usual port on this machine, or with `@BASE_URL`), `transformers:FOLDER` (in this process), or `scripted:FILE`.
Configuration is `config.toml` in the platform's configuration folder; keys are in the environment or in a `.env` beside it
that only its owner may read.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, NoModel
from ..protocol.record import Record
from . import configuration
from .local_servers import LOCAL_SERVERS, listed
from .mistral import MistralModel
from .openai_compatible import OpenAICompatible
from .scripted import DEMO, ScriptedModel

if TYPE_CHECKING:
    from .port import ChatModel

#: Mistral's coding model, as their API names its newest version.
MISTRAL_MODEL = "devstral-small-latest"

# Names of models may hold an @ of their own (LM Studio's name@q4_k_m).
_AT_URL = re.compile(r"(?P<model>.+?)@(?P<url>https?://.+)")

HOW_TO_GET_ONE = f"""There are four ways to get one:
  1. Mistral's API: set MISTRAL_API_KEY (a key from console.mistral.ai) in the environment.
  2. A server on this machine: start Ollama, LM Studio, llama.cpp, vLLM or SGLang; it is found by its usual port
     ({", ".join(f"{name} {port}" for name, port in LOCAL_SERVERS.items())}).
  3. Any OpenAI-compatible server: --model openai:MODEL@http://HOST:PORT/v1, with its key in OPENAI_API_KEY.
  4. A model's files on this machine, run in this process: --model transformers:FOLDER (pip install 'fumehood[transformers]').
To see it work without one: fumehood ask --model scripted:demo "What are the first 50 Fibonacci numbers?\""""


class Surroundings(Record):
    """Where to look: passed in, so that nothing is read behind the caller's back."""

    environment: Mapping[str, str]
    folder: Path
    ports: Mapping[str, int] = LOCAL_SERVERS

    @classmethod
    def of_this_process(cls) -> Surroundings:
        """Return this process's environment and the platform's configuration folder."""
        return cls(environment=os.environ, folder=configuration.folder())


def choose(spec: str | None, surroundings: Surroundings) -> ChatModel:
    """Return the model. Raises `NoModel` with the ways to get one, `ConfigurationError` for what cannot be used."""
    settings = configuration.read(surroundings.folder / configuration.NAME)
    keys = {**_read_keys(surroundings.folder / ".env"), **surroundings.environment}
    spec = spec or settings.get("model")
    if spec is not None:
        return _named(spec, settings, keys, surroundings.ports)
    if keys.get("MISTRAL_API_KEY"):
        return _named(f"mistral:{MISTRAL_MODEL}", settings, keys, surroundings.ports)
    for server, port in surroundings.ports.items():
        if models := listed(port):
            return _named(f"{server}:{models[0]}", settings, keys, surroundings.ports)
    raise NoModel(f"no model was named and none was found. {HOW_TO_GET_ONE}")


def _named(spec: str, settings: dict[str, Any], keys: Mapping[str, str], ports: Mapping[str, int]) -> ChatModel:
    kind, colon, rest = spec.partition(":")
    timeout_seconds = float(settings.get("timeout_seconds", 300))
    if not colon or not rest:
        raise NoModel(f"model {spec!r} is not of the form KIND:NAME. {HOW_TO_GET_ONE}")
    if kind == "scripted":
        return ScriptedModel(DEMO if rest == "demo" else Path(rest))
    if kind == "transformers":
        from .in_process import TransformersModel  # noqa: PLC0415 - for who has a model here

        return TransformersModel(Path(rest).expanduser(), timeout_seconds=timeout_seconds)
    if kind == "mistral":
        if not keys.get("MISTRAL_API_KEY"):
            raise NoModel("model mistral:… needs MISTRAL_API_KEY in the environment or in the configuration's .env")
        url = settings.get("mistral_server_url") or keys.get("MISTRAL_SERVER_URL")
        return MistralModel(rest, key=keys["MISTRAL_API_KEY"], server_url=url, timeout_seconds=timeout_seconds)
    if kind not in ("openai", *ports):
        kinds = ", ".join(("mistral", "openai", *ports, "transformers", "scripted"))
        raise NoModel(f"model {spec!r} is of an unknown kind: choose one of {kinds}")
    model, base_url = rest, f"http://127.0.0.1:{ports.get(kind)}/v1"
    if place := _AT_URL.fullmatch(rest):
        model, base_url = place["model"], place["url"]
    elif kind == "openai" or ("@" in rest and "://" in rest):
        raise NoModel(f"model {spec!r} does not say where: write {kind}:MODEL@http://HOST:PORT/v1")
    key = keys.get("OPENAI_API_KEY") or "none"
    # A key for some server must not go to whatever listens on a port of this machine.
    return OpenAICompatible(
        model, base_url=base_url, key=key if kind == "openai" else "none", timeout_seconds=timeout_seconds
    )


def _read_keys(path: Path) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8") as file:
            # Of the open file: by its name it might be another one a moment later.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise ConfigurationError(
                    f"{path} holds keys and others may read it (mode {mode:04o}): chmod 600 {path}"
                )
            lines = file.read().splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip().removeprefix("export ")
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigurationError(f"{path}, line {number}: write NAME=VALUE")
        keys[name.strip()] = value.strip().strip("'\"")
    return keys
