"""A run as one page of HTML that needs nothing else: every request and response, and no way out for what they hold.

Promised: whatever a server or model said stands there as text; the page runs no script and loads nothing, by its own policy.
"""

from __future__ import annotations

import json
import re
from html import escape
from typing import TYPE_CHECKING

from .check import Outcome, Severity
from .checks import family_of
from .reports import counts, link, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .check import Result
    from .reports import Report
    from .wire import Exchange

#: Prompts that fill a context would make the page too big to open.
_MOST_CHARACTERS = 20_000

_STYLE = """
:root { color-scheme: light dark }
:root { --ink: #1b1b1f; --soft: #5c5c66; --line: #dcdce2; --ground: #fff; --shade: #f4f4f7; --link: #1f4fbf }
:root { --good: #14692f; --bad: #b3121d; --other: #6b4e00; --pale: #fdf1f1 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6ea; --soft: #a5a5b0; --line: #3a3a44; --ground: #17171b; --shade: #222228; --link: #9dc1ff }
  :root { --good: #6fd08c; --bad: #ff8a90; --other: #e2c063; --pale: #2a1d20 }
}
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 4rem }
body { color: var(--ink); background: var(--ground) }
h1 { font-size: 1.45rem; margin: 0 0 .2rem; overflow-wrap: anywhere } h2 { font-size: 1.05rem; margin: 1.6rem 0 .3rem }
a { color: var(--link) } .soft { color: var(--soft) } p { margin: .3rem 0 }
.told { display: flex; flex-wrap: wrap; gap: .5rem; margin: .8rem 0 }
.told span { border: 1px solid var(--line); border-radius: 99px; padding: .1rem .8rem; font-weight: 600 }
.pass { color: var(--good) } .fail { color: var(--bad) } .skipped, .needs { color: var(--other) }
.failures { background: var(--pale); border: 1px solid var(--bad); border-radius: 8px; padding: .6rem 1rem; margin: 1rem 0 }
.failures h2 { margin: 0 } .failures li { margin: .5rem 0 } .failures ul { padding-left: 1.1rem; margin: .3rem 0 }
.check { border: 1px solid var(--line); border-top-width: 0; padding: 0 .8rem }
h2 + .check { border-top-width: 1px; border-radius: 8px 8px 0 0 } .check:last-child { border-radius: 0 0 8px 8px }
summary { cursor: pointer; padding: .3rem 0; overflow-wrap: anywhere }
.check > summary { display: grid; grid-template-columns: 8.5rem 3rem 15rem 1fr; gap: 0 .6rem; list-style: none }
.check > summary b { font-weight: 600 } .outcome { font-weight: 600 } .check[open] > summary { font-weight: 600 }
dl { display: grid; grid-template-columns: 8.5rem 1fr; gap: .2rem .6rem; margin: .3rem 0 .8rem }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
.said { border-top: 1px solid var(--line); font-size: .9rem } .said:last-child { margin-bottom: .6rem }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; margin-bottom: .6rem }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--shade); color: var(--ink); padding: .6rem; margin: 0 }
pre { font: 12.5px/1.45 ui-monospace, monospace; border-radius: 6px; max-height: 32rem; overflow-y: auto }
code { font: .92em ui-monospace, monospace; background: var(--shade); padding: 0 .2rem; border-radius: 3px }
@media (max-width: 45rem) {
  .check > summary { grid-template-columns: auto auto 1fr } .check > summary > :nth-child(n + 4) { grid-column: 1 / -1 }
  dl, .sides { grid-template-columns: minmax(0, 1fr) } dt { margin-top: .3rem }
}
"""


def page(report: Report) -> str:
    """Return the page."""
    numbers = [(outcome, number) for outcome, number in counts(report.results).items() if number]
    told = ", ".join(f"{number} {outcome}" for outcome, number in numbers)
    chips = "".join(f'<span class="{_class(outcome)}">{number} {outcome}</span>' for outcome, number in numbers)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(report.model)}: {told}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>{_text(report.model)} at {_text(report.base_url)}</h1>\n"
        f'<p class="soft">begun {report.begun}, {report.seconds:.1f} seconds, by Fumehood {_text(report.version)}</p>\n'
        f'<div class="told">{chips}</div>\n'
        + _failures([result for result in report.results if result.outcome is Outcome.FAIL])
        + "".join(_family(title, results) for title, results in _by_family(report.results))
        + "</body></html>\n"
    )


def _by_family(results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    """Return the results under the titles of their families, in the order in which they came."""
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(family_of(result.check), []).append(result)
    return list(grouped.items())


def _failures(results: list[Result]) -> str:
    if not results:
        return ""
    items = "".join(
        f'<li><b>{result.check.severity}</b> <a href="#{_text(result.check.id)}">{_text(result.check.id)} '
        f"{_text(result.check.name)}</a>: {_text(result.seen)}<br>{_prose(result.check.meaning)} "
        f'<span class="soft">Cure:</span> {_prose(result.check.cure)}</li>\n'
        for result in sorted(results, key=lambda each: list(Severity).index(each.check.severity))
    )
    return f'<div class="failures"><h2 class="fail">What failed</h2><ul>\n{items}</ul></div>\n'


def _family(title: str, results: list[Result]) -> str:
    return f"<section><h2>{_text(title)}</h2>{''.join(_result(result) for result in results)}</section>\n"


def _result(result: Result) -> str:
    check = result.check
    opened = " open" if result.outcome is Outcome.FAIL else ""
    issues = ", ".join(f'<a href="{_text(link(issue))}" rel="noreferrer">{_text(issue)}</a>' for issue in check.issues)
    facts = [
        ("Proves", _prose(check.proves)),
        ("Oracle", _prose(check.oracle)),
        (f"If it fails ({check.severity})", _prose(check.meaning)),
        ("Cure", _prose(check.cure)),
        *([("Reported as", issues)] if issues else []),
    ]
    return (
        f'<details class="check" id="{_text(check.id)}"{opened}><summary><span class="outcome {_class(result.outcome)}">'
        f"{result.outcome}</span><b>{_text(check.id)}</b><span>{_text(check.name)}</span>"
        f"<span>{_text(result.seen)}</span></summary>\n"
        f"<dl>{''.join(f'<dt>{name}</dt><dd>{words}</dd>' for name, words in facts)}</dl>\n"
        + "".join(_exchange(exchange) for exchange in result.exchanges)
        + "</details>\n"
    )


def _exchange(exchange: Exchange) -> str:
    asked = exchange.request
    request = (
        "no body"
        if asked is None
        else asked
        if isinstance(asked, str)
        else json.dumps(asked, indent=1, ensure_ascii=False)
    )
    after = exchange.first_byte_seconds
    first = "" if after is None else f", first byte after {after:.3f} s"
    broken = f"; {_text(exchange.broken)}" if exchange.broken else ""
    way = ", streamed" if exchange.streamed else ""
    headers = "".join(f"{name}: {value}\n" for name, value in exchange.headers.items())
    return (
        f'<details class="said"><summary>{exchange.method} {_text(exchange.path)}{way}: {exchange.status}, '
        f"{len(exchange.body)} bytes in {exchange.seconds:.3f} s{first}{broken}</summary>\n"
        f'<div class="sides"><div><p class="soft">Request</p><pre>{_text(_cut(request))}</pre></div>'
        f'<div><p class="soft">Response</p><pre>{_text(_cut(headers))}\n{_text(_cut(exchange.text))}</pre></div></div></details>\n'
    )


def _class(outcome: str) -> str:
    return str(outcome).split()[0]


def _prose(words: str) -> str:
    """Return our own words, with what stands between backquotes as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", _text(words))


def _cut(text: str) -> str:
    more = len(text) - _MOST_CHARACTERS
    return text if more <= 0 else f"{text[:_MOST_CHARACTERS]}… and {more} characters more"


def _text(text: str) -> str:
    return escape(visible(text))
