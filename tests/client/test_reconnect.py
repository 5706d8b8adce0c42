"""Pauses begin at nothing, double, stop growing; and patience ends when it was said to."""

from itertools import islice

import pytest

from jobctl.connection import Connection
from jobctl.contexts import Context
from jobctl.errors import ConnectionLost, Unavailable
from jobctl.reconnect import FIRST_PAUSE, LONGEST_PAUSE, Patience, pauses

LOST = ConnectionLost("lost")


def connection(*, answered: bool) -> Connection:
    made = Connection(Context("worker:9090", "ca.pem", "cert.pem"))
    made.answered = answered
    return made


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_pauses(chance: float) -> None:
    first, *rest = islice(pauses(lambda: chance), 12)
    assert first == 0
    share = 0.5 + 0.5 * chance
    assert rest == [min(FIRST_PAUSE * 2**n, LONGEST_PAUSE) * share for n in range(11)]


async def test_a_worker_that_never_answered_is_not_waited_for() -> None:
    with pytest.raises(ConnectionLost):
        await Patience(connection(answered=False), limit=None).wait(LOST)


async def test_the_first_attempt_is_at_once_and_patience_ends() -> None:
    told: list[Unavailable] = []
    trust = Patience(connection(answered=True), limit=0.01, notice=told.append)
    await trust.wait(LOST)
    with pytest.raises(ConnectionLost):
        await trust.wait(LOST)
    assert told == [LOST]


async def test_what_works_again_begins_anew() -> None:
    trust = Patience(connection(answered=True), limit=0.01)
    for _ in range(3):
        await trust.wait(LOST)
        trust.restored(limit=0.01)
