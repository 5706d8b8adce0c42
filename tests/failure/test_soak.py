"""A few rounds of the soak, which is run for long by `make soak`."""

from pathlib import Path

import pytest

from tests.harness import probes
from tests.soak.__main__ import play

pytestmark = [pytest.mark.slow, probes.needs_fast_processes]

ROUNDS = 15


def test_load_and_kills_leave_no_fault(tmp_path: Path) -> None:
    tally = play(tmp_path, rounds=range(ROUNDS), seed=20)
    assert tally.faults == []
    assert tally.counts["rounds"] == ROUNDS
    assert tally.counts["bytes followed"]
