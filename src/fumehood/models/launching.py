"""How other servers of the model are started: the flags that its card and the known failures ask for, as data.

Nothing is started here. Each server's remarks say what stays wrong with it whatever its flags, and the way around.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, ModelFilesUnusable
from ..protocol.record import Record
from .files import checked
from .room import KV_BYTES, Room, room

if TYPE_CHECKING:
    from collections.abc import Callable

    from .machine import Machine

# By what the network's 32 heads are divided among.
_PARALLEL = (8, 4, 2, 1)


class Wanted(Record):
    """What is to be served, and where."""

    model: str
    name: str
    host: str
    port: int
    #: None for what the machine has room for.
    context: int | None
    machine: Machine
    #: The environment variable that holds the key which callers need.
    key_variable: str | None


class Launch(Record):
    """How a server is started: its command, and what is run once it listens. A value of `keys` is a variable's name.

    `name` is the model's there. `why` says how the context was chosen, `get` how to get the program.
    """

    command: tuple[str, ...]
    name: str
    get: str
    why: str
    #: What the command's Python is to have.
    module: str = ""
    #: Each is run to its end, where the server has not the model yet.
    then: tuple[tuple[str, ...], ...] = ()
    #: The command ends at once, and the server goes on by itself until this one ends it.
    ended_by: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    keys: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()


def launch(engine: str, wanted: Wanted) -> Launch:
    """Return how to start it. Raises `ConfigurationError` for an unknown engine, `ModelFilesUnusable` for files on this machine."""
    made = ENGINES.get(engine)
    if made is None:
        raise ConfigurationError(f"--engine {engine}: there is none of this name: transformers, {', '.join(ENGINES)}")
    return made(wanted)


def _vllm(wanted: Wanted) -> Launch:
    _check_folder(wanted.model)
    found = _room(wanted, small=False)
    keeps = -(-found.tokens * KV_BYTES >> 30)
    return Launch(
        command=(
            "vllm", "serve", wanted.model, "--served-model-name", wanted.name, "--host", wanted.host,
            "--port", str(wanted.port), "--tokenizer-mode", "mistral", "--tool-call-parser", "mistral",
            "--enable-auto-tool-choice", "--max-model-len", str(found.tokens),
            "--tensor-parallel-size", str(_parallel(wanted)),
        ),
        name=wanted.name, why=found.why, get="pip install vllm, in an environment of its own",
        # On a processor it keeps 4 GiB of keys and values unless told otherwise, and refuses a context that needs more.
        environment=() if wanted.machine.accelerators else (("VLLM_CPU_KVCACHE_SPACE", str(keeps)),),
        keys=(("VLLM_API_KEY", wanted.key_variable),) if wanted.key_variable else (),
        remarks=(
            "with mistral-common 1.13 vLLM 0.32 answers every request with 400: pip install 'mistral-common<1.13'",
            "take streamed answers: in whole ones 0.32 says tool_calls for calls that were cut, and makes calls of quoted ones",
            "tool_choice any and the role developer are refused",
        ),
    )  # fmt: skip


def _sglang(wanted: Wanted) -> Launch:
    _check_folder(wanted.model)
    if wanted.key_variable:
        raise ConfigurationError("sglang takes its key on the command line, where every user of this machine reads it")
    found = _room(wanted, small=False)
    return Launch(
        command=(
            "python3", "-m", "sglang.launch_server", "--model-path", wanted.model, "--served-model-name", wanted.name,
            "--host", wanted.host, "--port", str(wanted.port), "--tool-call-parser", "mistral",
            "--context-length", str(found.tokens), "--tp", str(_parallel(wanted)),
        ),
        module="sglang", name=wanted.name, why=found.why,
        get="pip install sglang, in the environment whose python3 is first on PATH",
        remarks=(
            "calls of unknown tools, and those that were cut, are dropped without a word",
            "take whole answers where tools are offered: its streams lose the ] of plain text",
            "a forced call is written in an older format",
        ),
    )  # fmt: skip


def _llama_cpp(wanted: Wanted) -> Launch:
    _check_gguf(Path(wanted.model))
    found = _room(wanted, small=True)
    return Launch(
        command=(
            "llama-server", "--model", wanted.model, "--alias", wanted.name, "--host", wanted.host,
            "--port", str(wanted.port), "--jinja", "--ctx-size", str(found.tokens), "--no-context-shift",
            "--parallel", "1", *(("--n-gpu-layers", "999") if wanted.machine.accelerators else ()),
        ),
        name=wanted.name, why=found.why, get="build llama.cpp's target llama-server, or take one of its releases",
        keys=(("LLAMA_API_KEY", wanted.key_variable),) if wanted.key_variable else (),
        remarks=(
            "text of a user's that spells a control token becomes one: do not put pages or files of strangers before it",
            "results of two calls must be sent in the calls' order: they are matched by place",
            "a tool that tool_choice names is not kept to where the model calls another; with none, or cut, a call comes as text",
            "arguments in the history that are no JSON are an error (500): mend them before they are sent back",
            "a file that was converted without a template has the one of an older model: add --chat-template-file",
        ),
    )  # fmt: skip


def _ollama(wanted: Wanted) -> Launch:
    if wanted.key_variable:
        raise ConfigurationError(
            "ollama knows no key: serve at this machine's own address, behind a proxy that asks for one"
        )
    found = _room(wanted, small=True)
    host = f"[{wanted.host}]" if ":" in wanted.host else wanted.host
    return Launch(
        command=("ollama", "serve"),
        # It knows the model by its own name alone.
        name=wanted.model, why=found.why, get="install Ollama from its makers' page",
        then=(("ollama", "pull", wanted.model),),
        environment=(("OLLAMA_HOST", f"{host}:{wanted.port}"), ("OLLAMA_CONTEXT_LENGTH", str(found.tokens))),
        remarks=(
            "without OLLAMA_CONTEXT_LENGTH a prompt is cut to 4,096 tokens without a word; num_ctx in a request changes nothing",
            "tool_choice is not kept; one call of an unknown tool fails the whole answer",
        ),
    )  # fmt: skip


def _lmstudio(wanted: Wanted) -> Launch:
    if wanted.key_variable:
        raise ConfigurationError(
            "lms takes no key: serve at this machine's own address, behind a proxy that asks for one"
        )
    found = _room(wanted, small=True)
    return Launch(
        command=("lms", "server", "start", "--port", str(wanted.port)),
        name=wanted.name, why=found.why, get="install LM Studio, start it once, then npx lmstudio install-cli",
        then=(("lms", "load", wanted.model, "--identifier", wanted.name, "--context-length", str(found.tokens)),),
        ended_by="lms server stop",
        remarks=("parallel calls and usage in streams are known to fail: fumehood model verify shows it",),
    )  # fmt: skip


#: The servers, by their names.
ENGINES: dict[str, Callable[[Wanted], Launch]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "llama.cpp": _llama_cpp,
    "ollama": _ollama,
    "lmstudio": _lmstudio,
}


def _parallel(wanted: Wanted) -> int:
    return next(count for count in _PARALLEL if count <= max(1, wanted.machine.accelerators))


def _room(wanted: Wanted, *, small: bool) -> Room:
    if wanted.context is not None:
        return Room(tokens=wanted.context, why=f"a context of {wanted.context} tokens, as asked for")
    # A small model's server spreads it over all that there is.
    parallel = max(1, wanted.machine.accelerators) if small else _parallel(wanted)
    return room(wanted.machine, wanted.model, parallel=parallel, small=small)


def _check_folder(model: str) -> None:
    """Check a folder on this machine; `owner/name` is one of a hub's, which the server fetches."""
    if Path(model).exists() or model.startswith((".", "/", "~")) or model.count("/") != 1:
        checked(Path(model))


def _check_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ModelFilesUnusable(
            f"{path} cannot be read ({error.strerror}): llama.cpp takes one file of the form .gguf"
        ) from error
    if start != b"GGUF":
        raise ModelFilesUnusable(
            f"{path} is no file of the form .gguf, which llama.cpp takes: convert the model, or download one"
        )
