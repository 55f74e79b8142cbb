"""Plots as SVG inside the page, drawn on the server: no script, and colours by the page's own style sheet."""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from .render import took

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..store.executions import Bucket

HOURS = 24
# In units of the picture, which the page scales.
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 520, 200, 54, 10, 26
_INSIDE = _HEIGHT - _TOP - _BOTTOM
_SLOT = (_WIDTH - _LEFT) / HOURS


def since(now: dt.datetime) -> str:
    """Return the moment at which the first hour of a plot begins."""
    return hours(now)[0] + ":00:00.000Z"


def hours(now: dt.datetime) -> list[str]:
    """Return the hours of a plot as buckets name them, the present one last."""
    return [(now - dt.timedelta(hours=HOURS - 1 - each)).strftime("%Y-%m-%dT%H") for each in range(HOURS)]


def executions(buckets: Iterable[Bucket], now: dt.datetime) -> Markup:
    """Return executions by the hour, those that failed in another colour."""
    by_hour = {each.at: each for each in buckets}
    most = _round_up(max((each.executions for each in by_hour.values()), default=0))
    parts = [_line_at(_y(value / most), f"{value:g}") for value in _ticks(most)]
    for place, hour in enumerate(hours(now)):
        bucket = by_hour.get(hour)
        if bucket is None:
            continue
        well = bucket.executions - bucket.failed
        words = f"{hour[11:]}:00, {bucket.executions} executions, {bucket.failed} failed"
        bars = _bar(place, 0, well / most, "well") + _bar(place, well / most, bucket.executions / most, "failed")
        parts.append(f"<g><title>{escape(words)}</title>{bars}{_hover(place)}</g>")
    return _picture(parts, now, f"Executions by the hour, {HOURS} hours", is_empty=not by_hour)


def latency(buckets: Iterable[Bucket], now: dt.datetime) -> Markup:
    """Return by the hour how long executions took, on a logarithmic scale: the mean, and the longest."""
    by_hour = {each.at: each for each in buckets}
    values = [max(1.0, each) for bucket in by_hour.values() for each in (bucket.mean_ms, float(bucket.longest_ms))]
    low = math.floor(math.log10(min(values, default=1.0)))
    high = max(low + 1, math.ceil(math.log10(max(values, default=1000.0))))

    def height(milliseconds: float) -> float:
        return _y((math.log10(max(1.0, milliseconds)) - low) / (high - low))

    parts = [_line_at(height(10.0**power), _brief(10.0**power)) for power in range(low, high + 1)]
    means: list[tuple[float, float]] = []
    for place, hour in enumerate(hours(now)):
        bucket = by_hour.get(hour)
        if bucket is None:
            continue
        x, mean, longest = _x(place), height(bucket.mean_ms), height(bucket.longest_ms)
        means.append((x, mean))
        words = f"{hour[11:]}:00, mean {took(bucket.mean_ms)}, longest {took(bucket.longest_ms)}"
        parts.append(
            f'<g><title>{escape(words)}</title><line class="range" x1="{x:.1f}" x2="{x:.1f}" y1="{mean:.1f}" y2="{longest:.1f}"/>'
            f'<circle class="longest" cx="{x:.1f}" cy="{longest:.1f}" r="3"/>'
            f'<circle class="mean" cx="{x:.1f}" cy="{mean:.1f}" r="3.5"/>{_hover(place)}</g>'
        )
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in means)
    return _picture(
        [f'<polyline class="mean" points="{path}"/>', *parts],
        now,
        "How long they took, by the hour",
        is_empty=not by_hour,
    )


def percentile(sorted_values: Sequence[int], share: float) -> int | None:
    """Return the value that so great a share of them does not exceed; None where there is none."""
    if not sorted_values:
        return None
    return sorted_values[max(0, math.ceil(share * len(sorted_values)) - 1)]


def _picture(parts: list[str], now: dt.datetime, title: str, *, is_empty: bool) -> Markup:
    if is_empty:
        x = _LEFT + (_WIDTH - _LEFT) / 2
        parts = [
            _line_at(_y(0), ""),
            f'<text class="empty" x="{x:.0f}" y="{_y(0.5):.0f}" text-anchor="middle">Nothing ran in the last {HOURS} hours</text>',
        ]
    labels = "".join(
        f'<text class="tick" x="{_x(place):.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{hour[11:]}:00</text>'
        for place, hour in enumerate(hours(now)) if int(hour[11:]) % 6 == 0 and 0 < place < HOURS - 1
    )  # fmt: skip
    body = "".join(parts)
    return Markup(  # noqa: S704 - numbers, and words that were escaped above
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{body}{labels}</svg>'
    )


def _x(place: int) -> float:
    return _LEFT + _SLOT * (place + 0.5)


def _y(share: float) -> float:
    return _TOP + _INSIDE * (1 - share)


def _bar(place: int, low: float, high: float, name: str) -> str:
    if high <= low:
        return ""
    x, y, width, height = _x(place) - _SLOT * 0.36, _y(high), _SLOT * 0.72, max(1.5, _INSIDE * (high - low))
    return f'<rect class="{name}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="1.5"/>'


def _hover(place: int) -> str:
    """Return what makes the words of an hour appear over all of its height."""
    return f'<rect class="hover" x="{_LEFT + _SLOT * place:.1f}" y="{_TOP}" width="{_SLOT:.1f}" height="{_INSIDE}"/>'


def _line_at(y: float, words: str) -> str:
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{escape(words)}</text>'
    )


def _brief(milliseconds: float) -> str:
    return f"{milliseconds:g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:g} s"


def _round_up(most: int) -> int:
    """Return a number from which people read the others with ease."""
    if most <= 4:
        return 4
    size = 10 ** math.floor(math.log10(most))
    return int(next(size * step for step in (1, 2, 4, 6, 8, 10) if size * step >= most))


def _ticks(most: int) -> list[float]:
    parts = 4 if most % 4 == 0 else 2
    return [most * each / parts for each in range(parts + 1)]
