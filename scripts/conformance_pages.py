"""Reports of `scripts/conformance` as Markdown: one page a run, and the table of all runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fumehood.conformance.checks import CHECKS
from fumehood.conformance.reports import visible

if TYPE_CHECKING:
    from pathlib import Path

_OUTCOMES = ("pass", "fail", "skipped", "needs real weights")
_SEVERITIES = ("critical", "major", "minor")


def summary(runs: list[dict[str, Any]]) -> str:
    """Return the page of one engine's runs. What the server said stands in it as code, which Markdown leaves alone."""
    first = runs[0]
    parts = [
        f"# {first['engine']} {first['version']}\n\nMade by `./scripts/conformance {first['engine']}` "
        f"([how to read it](../README.md)). {first['remark']}.\n\nBegun {first['begun']}, Fumehood {first['fumehood']} at commit "
        f"{first['commit']}, {first['machine']}.\n\n",
        f"| model | | {' | '.join(_OUTCOMES)} | seconds |\n| --- | --- |{' ---: |' * 5}\n",
    ]
    for run in runs:
        numbers = " | ".join(str(run["outcomes"][outcome]) for outcome in _OUTCOMES)
        parts.append(f"| [{run['model']}]({run['model']}.json) | {run['says']} | {numbers} | {run['seconds']:.0f} |\n")
    parts.append(_failures(runs))
    parts.append(_skipped(runs))
    parts.append(_unproven(runs))
    return "".join(parts)


def table(folder: Path) -> str:
    """Return the table of all runs that are kept in this folder."""
    lines = ["| engine | version | date | commit | model | pass | fail | skipped | needs real weights | failed |\n"]
    lines.append("| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: | --- |\n")
    for path in sorted(folder.glob("*/*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        numbers = " | ".join(str(run["outcomes"][outcome]) for outcome in _OUTCOMES)
        failed = ", ".join(check["id"] for check in run["checks"] if check["outcome"] == "fail")
        lines.append(
            f"| [{run['engine']}]({path.parent.name}/README.md) | {run['version']} | {run['begun'][:10]} | {run['commit']} | "
            f"{run['model']} | {numbers} | {failed or 'none'} |\n"
        )
    return "".join(lines)


def _failures(runs: list[dict[str, Any]]) -> str:
    found = _by_check(runs, "fail")
    if not found:
        return "\n## Failures\n\nNone.\n"
    parts = ["\n## Failures\n"]
    for check in sorted(CHECKS, key=lambda each: _SEVERITIES.index(each.severity)):
        if check.id not in found:
            continue
        parts.append(f"\n### {check.id} {check.name} ({check.severity})\n\n")
        parts += [f"- {', '.join(models)}: {_code(seen)}\n" for seen, models in found[check.id].items()]
        parts.append(
            f"\nProves: {_words(check.proves)}. If it fails: {_words(check.meaning)} Cure: {_words(check.cure)}\n"
        )
    return "".join(parts)


def _skipped(runs: list[dict[str, Any]]) -> str:
    found = _by_check(runs, "skipped")
    if not found:
        return ""
    parts = ["\n## Skipped\n\n"]
    for id_, seen in found.items():
        parts += [f"- {id_} {_name(id_)} ({', '.join(models)}): {_code(words)}\n" for words, models in seen.items()]
    return "".join(parts)


def _unproven(runs: list[dict[str, Any]]) -> str:
    """Name what no model of the run could show: their words gave nothing to judge the server by."""
    shown = {check["id"] for run in runs for check in run["checks"] if check["outcome"] in ("pass", "fail")}
    names = [f"{id_} {_name(id_)}" for id_ in _by_check(runs, "needs real weights") if id_ not in shown]
    return f"\n## Needs real weights\n\nWhat none of these models could show: {', '.join(names) or 'nothing'}.\n"


def _by_check(runs: list[dict[str, Any]], outcome: str) -> dict[str, dict[str, list[str]]]:
    """Return for each check what was seen, and with which models."""
    found: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        for check in run["checks"]:
            if check["outcome"] == outcome:
                found.setdefault(check["id"], {}).setdefault(check["seen"], []).append(run["model"])
    return found


def _name(id_: str) -> str:
    return next((check.name for check in CHECKS if check.id == id_), "")


def _code(text: str) -> str:
    """Return a server's words as code in one line, in which nothing is a link."""
    return "`" + visible(text).replace("`", "'").replace("\n", " ").replace("](", "] (") + "`"


def _words(text: str) -> str:
    return text.replace("<", "&lt;").replace("[", "\\[")
