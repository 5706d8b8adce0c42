"""Rounds, medians, and the table everybody prints: each figure beside its ratio to ours."""

import json
import math
import os
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.peers import Peer

RESULTS = Path(__file__).parent / "results"

Ways = Mapping[str, Callable[[], Awaitable[float]]]  # what is measured, by the name that tables call it


async def rounds(
    peers: Sequence[Peer], measure: Callable[[Peer], Awaitable[float]], *, count: int
) -> dict[str, list[float]]:
    """Measures every peer in turn, as `take_turns` does."""
    return await take_turns({peer.name: partial(measure, peer) for peer in peers}, count=count)


async def take_turns(ways: Ways, *, count: int) -> dict[str, list[float]]:
    """Measures every way in turn, `count` times, so that a noisy minute falls on all of them; one turn is not counted."""
    figures: dict[str, list[float]] = {name: [] for name in ways}
    for measure in ways.values():
        await measure()
    for _ in range(count):
        for name, measure in ways.items():
            figures[name].append(await measure())
    return figures


def report(
    title: str,
    unit: str,
    figures: Mapping[str, Sequence[float]],
    *,
    against: str | None = None,
    more_is_better: bool = False,
) -> None:
    """Prints median, 99th percentile, lowest and highest, and how much better `against` is; writes all as JSON.

    The machine's load is told beside them: with neighbours at work only ratios mean anything.
    """
    load = os.getloadavg()[0]
    print(f"\n{title} ({unit}; load {load:.1f})")
    print(
        f"  {'':30} {'median':>10} {'p99':>10} {'lowest':>10} {'highest':>10}   {'we are better' if against else ''}"
    )
    ours = statistics.median(figures[against]) if against else math.nan
    for name, values in figures.items():
        median = statistics.median(values)
        row = "".join(
            f" {value:10.2f}" for value in (median, percentile(values, 99), min(values), max(values))
        )
        ratio = ours / median if more_is_better else median / ours
        print(f"  {name:30}{row}   {'' if math.isnan(ratio) or name == against else f'{ratio:.2f}x'}")
    RESULTS.mkdir(exist_ok=True)
    content = {"title": title, "unit": unit, "load": load, "figures": figures}
    path = RESULTS / f"{title.lower().replace(' ', '-').replace('/', '')}.json"
    path.write_text(json.dumps(content, indent=1))


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]
