"""Rounds, medians, and the table everybody prints: each figure beside its ratio to ours."""

import json
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from bench.peers import Peer

RESULTS = Path(__file__).parent / "results"


async def rounds(
    peers: Sequence[Peer], measure: Callable[[Peer], Awaitable[float]], *, count: int
) -> dict[str, list[float]]:
    """Measures every peer in turn, `count` times, so that a noisy minute falls on all of them; one turn is not counted."""
    figures: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for peer in peers:
        await measure(peer)
    for _ in range(count):
        for peer in peers:
            figures[peer.name].append(await measure(peer))
    return figures


def report(
    title: str, unit: str, figures: Mapping[str, Sequence[float]], *, against: str, more_is_better: bool
) -> None:
    """Prints median, lowest and highest of each peer and how much better `against` is; writes the same as JSON."""
    ours = statistics.median(figures[against])
    print(f"\n{title} ({unit}; median, lowest, highest; last column: how many times better we are)")
    for name, values in figures.items():
        median = statistics.median(values)
        ratio = ours / median if more_is_better else median / ours
        print(
            f"  {name:28} {median:9.2f} {min(values):9.2f} {max(values):9.2f}   {'' if name == against else f'{ratio:.2f}x'}"
        )
    RESULTS.mkdir(exist_ok=True)
    name = title.lower().replace(" ", "-").replace("/", "")
    (RESULTS / f"{name}.json").write_text(
        json.dumps({"title": title, "unit": unit, "figures": figures}, indent=1)
    )
