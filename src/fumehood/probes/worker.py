"""Tries probes in one way, and prints what came of each as a line of JSON: a process of `running`'s, not meant for people.

Its argument is [way, [names of probes]].
"""

from __future__ import annotations

import json
import os
import sys

from . import running


def main() -> None:
    """Do it."""
    way, names = json.loads(sys.argv[1])
    chosen = {probe.name: probe for probe in running.choose()}
    # What a probe's victims print must not come between the lines.
    results = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    for outcome in running.run_here([chosen[name] for name in names], way):
        results.write(json.dumps(outcome.as_dict()).encode() + b"\n")


if __name__ == "__main__":
    main()
