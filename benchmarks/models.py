"""Models in this process, beside transformers' own loop on the same network, by `./scripts/bench models`.

Each round runs all ways, one after another, with one thread. Times are processor time of the whole process, which neighbours on the
machine lengthen less than they do the clock's.
"""

from __future__ import annotations

import queue
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.testing.tiny_models import random_model

from fumehood.models.answering import Ended
from fumehood.models.asking import read
from fumehood.models.engine import Engine
from fumehood.models.loading import load
from fumehood.models.prompt import encoded

from . import report

if TYPE_CHECKING:
    from fumehood.models.loading import Model

TOKENS = 100
_BODY = {"messages": [{"role": "user", "content": "Tell me more."}], "temperature": 0, "max_tokens": TOKENS}
# Width and layers: one whose step is all overhead, one that computes.
_NETWORKS = {"2 layers of 64": (64, 2), "12 layers of 512": (512, 12)}


def main() -> int:
    """Measure, print and save."""
    arguments = report.options(__doc__, rounds=20)
    try:
        import torch  # noqa: PLC0415 - an extra
    except ImportError:
        print("benchmark: torch is not installed: pip install 'fumehood[transformers]'", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name, (width, layers) in _NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            rows += _measured(name, random_model(Path(folder), width=width, layers=layers), arguments.rounds)
    notes = [
        f"Per token of {TOKENS} at temperature 0, random weights of Devstral Small 2's shape, one thread, processor time."
    ]
    report.save("models", rows, arguments, notes)
    return 0


def _measured(name: str, folder: Path, rounds: int) -> list[dict[str, Any]]:
    model = load(folder)
    theirs: list[float] = []
    ours: list[float] = []
    eight: list[float] = []
    with Engine(model) as engine:
        for number in range(rounds + 1):
            measured = _generate(model), _answers(engine, 1), _answers(engine, 8)
            if number:  # the first one warms up
                for times, seconds in zip((theirs, ours, eight), measured, strict=True):
                    times.append(seconds)
    return [
        report.row(f"{name}: generate", theirs, theirs),
        report.row(f"{name}: our engine", ours, theirs, "1.10"),
        report.row(f"{name}: our engine, each of 8 at once", eight, ours, "0.33"),
    ]


def _generate(model: Model) -> float:
    import torch  # noqa: PLC0415 - as above

    prompt = torch.tensor([list(encoded(model.tokenizer, read(_BODY)).tokens)])
    begun = time.process_time()
    with torch.inference_mode():
        made = model.network.generate(prompt, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)
    return (time.process_time() - begun) / int(made.shape[1] - prompt.shape[1])


def _answers(engine: Engine, count: int) -> float:
    heard: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _answer in range(count)]
    begun = time.process_time()
    for each in heard:
        engine.submit(read(_BODY), each.put)
    tokens = 0
    for each in heard:
        event = each.get()
        while not isinstance(event, Ended):
            event = each.get()
        tokens += event.completion_tokens
    return (time.process_time() - begun) / tokens


if __name__ == "__main__":
    sys.exit(main())
