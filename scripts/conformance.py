"""Verifies real engines that serve tiny models, and keeps the reports: see docs/conformance/README.md.

Each engine runs the same models. Their weights are noise, or written by hand so that the engine makes real calls of real
control tokens: see tests/testing/tiny_models.py.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from conformance_engines import AS_CONVERTED, CACHE, CONTEXT, ENGINES, NAME, Engine  # noqa: E402 - found by the line above
from conformance_pages import summary  # noqa: E402 - likewise
from tests.testing.tiny_models import FULL, Parrot, call, random_model  # noqa: E402 - likewise

DOCS = ROOT / "docs" / "conformance"
#: A page with every request and response is kept beside the summary where it is no larger.
_MOST_PAGE_BYTES = 500_000
_RESULT = ("[/TOOL_RESULTS]", "Done.")
#: What `model verify` ends with when it came to its end.
_ENDS = (0, 1, 3, 4, 5)


def _noise(folder: Path) -> Path:
    return random_model(folder, sizes=FULL, context=CONTEXT)


def _parrot(*script: str) -> Callable[[Path], Path]:
    return lambda folder: Parrot(FULL).says("[/INST]", *script).says(*_RESULT).save(folder, context=CONTEXT)


_STORY = _parrot(*call("write_a_story"))
#: Each model, what it says, and how it is made.
MODELS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "noise": ("random weights", _noise),
    "story": ("calls write_a_story, whatever is asked", _STORY),
    "lister": (
        "says a sentence, then calls terminal",
        _parrot("I will list the files:", *call("terminal", command="ls")),
    ),
    "quoter": (
        "calls python with code in which the marks of a call stand as text",
        _parrot(*call("python", code="print('[TOOL_CALLS]rm[ARGS]{}')")),
    ),
    AS_CONVERTED: ("as story, with the template that the converter chose", _STORY),
}


def main(names: list[str]) -> int:
    """Run these engines, or our own."""
    unknown = [name for name in names if name not in ENGINES]
    if unknown:
        print(f"conformance: there is no engine {unknown[0]!r}: {', '.join(ENGINES)}", file=sys.stderr)
        return 2
    for name in names or ["transformers"]:
        _engine(ENGINES[name]())
    return 0


def _engine(engine: Engine) -> None:
    begun, commit, machine = datetime.now(UTC), _commit(), _machine()
    name = f"{begun:%Y-%m-%d}-{engine.name}-{engine.version}"
    runs = []
    with tempfile.TemporaryDirectory(prefix="fumehood-") as made:
        for model, (what, make) in MODELS.items():
            if model == AS_CONVERTED and model not in engine.more_models:
                continue
            folder = make(Path(made) / model)
            kept = CACHE / name / model
            kept.mkdir(parents=True, exist_ok=True)
            value = _verified(engine, folder, kept)
            facts = {
                "engine": engine.name, "version": engine.version, "remark": engine.remark, "model": model, "says": what,
                "commit": commit, "machine": machine, **value,
            }  # fmt: skip
            runs.append(facts)
            print(
                f"conformance: {engine.name} {engine.version}, {model}: {facts['outcomes']} in {facts['seconds']} s",
                flush=True,
            )
    _keep(DOCS / name, runs, CACHE / name)


def _keep(folder: Path, runs: list[dict[str, Any]], pages: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for run in runs:
        page = (pages / run["model"] / "verify.html").read_text(encoding="utf-8")
        if len(page.encode()) <= _MOST_PAGE_BYTES:
            (folder / f"{run['model']}.html").write_text(page, encoding="utf-8")
        slim = {**run, "checks": [_slim(check) for check in run["checks"]]}
        (folder / f"{run['model']}.json").write_text(
            json.dumps(slim, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    (folder / "README.md").write_text(summary(runs), encoding="utf-8")
    print(f"conformance: kept in {folder.relative_to(ROOT)}; all pages are in {pages.relative_to(ROOT)}")


def _slim(check: dict[str, Any]) -> dict[str, Any]:
    """Return what came of a check, without what docs/reference/checks.md says of it."""
    return {name: check[name] for name in ("id", "name", "severity", "outcome", "seen", "seconds", "requests")}


def _verified(engine: Engine, folder: Path, kept: Path) -> dict[str, Any]:
    """Serve the model, verify it as a user does, and return the JSON."""
    with _serving(engine, folder, kept / "server.log") as url:
        words = [
            "--base-url", url, "--model", NAME, "--tokenizer", str(folder), "--json", "--html", str(kept / "verify.html"),
            "--junit", str(kept / "verify.xml"),
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "fumehood", "model", "verify", *words], capture_output=True, text=True, check=False
        )
    if done.returncode not in _ENDS:
        raise SystemExit(f"conformance: verify ended with {done.returncode}: {done.stderr}")
    (kept / "verify.json").write_text(done.stdout, encoding="utf-8")
    # A server may name the folder: where it lay is nobody's business.
    value: dict[str, Any] = json.loads(done.stdout.replace(str(folder.parent), "MODELS"))
    del value["server"], value["model"]
    return value


@contextmanager
def _serving(engine: Engine, folder: Path, log: Path) -> Iterator[str]:
    """Start the engine, wait until it answers, and end it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = engine.serves(folder, port)
    with (
        log.open("w") as written,
        subprocess.Popen(
            command.words, env={**os.environ, **command.environment}, stdout=written, stderr=subprocess.STDOUT, cwd=folder.parent
        ) as process,
    ):  # fmt: skip
        try:
            _wait(f"http://127.0.0.1:{port}/health", process, engine.seconds, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(url: str, process: subprocess.Popen[bytes], seconds: float, log: Path) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(url, timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"conformance: the server did not start; it said\n{log.read_text(errors='replace')[-3000:]}")


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (
        "+" if git("status", "--porcelain", "src", "scripts", "tests") else ""
    )


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    return f"{len(os.sched_getaffinity(0))} cores of {model}, Linux {platform.release()}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
