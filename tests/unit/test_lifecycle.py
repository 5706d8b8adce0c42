"""The table and the rule for the end reason, case by case."""

import signal
from typing import Any

import pytest

from generated.jobworker.v1 import EndReason, JobState
from jobworker import lifecycle
from jobworker.lifecycle import ENDED, RUNNING, STARTING, STOPPING, Event, LifecycleError
from jobworker.supervisor.jobfacts import ExitRecord


def facts(**changes: Any) -> ExitRecord:
    """An exit record of a program that exited with 0, but for `changes`."""
    record: dict[str, Any] = {
        "version": 1,
        "job": "j",
        "boot_id": "b",
        "started_ns": 1,
        "main_exited_ns": 2,
        "ended_ns": 3,
        "exit_code": 0,
        "signal": None,
        "core_dumped": False,
        "stop_requested": False,
        "grace_expired": False,
        "timed_out": False,
        "oom_kills": 0,
        "start_failure": None,
        "usage": {},
        "output_bytes": 0,
        "survivors": 0,
    }
    return {**record, **changes}  # type: ignore[typeddict-item]


def killed(**changes: Any) -> ExitRecord:
    return facts(exit_code=None, signal=int(signal.SIGKILL), **changes)


def test_table_has_every_state_and_only_known_ones() -> None:
    states = {state for state in JobState if state}
    assert set(lifecycle.TRANSITIONS) == states
    assert {after for moves in lifecycle.TRANSITIONS.values() for after in moves.values()} <= states


def test_no_move_goes_back() -> None:
    for before, moves in lifecycle.TRANSITIONS.items():
        for after in moves.values():
            assert after >= before


@pytest.mark.parametrize(
    ("state", "event", "after"),
    [
        (STARTING, Event.LAUNCHED, RUNNING),
        (STARTING, Event.LAUNCH_FAILED, ENDED),
        (STARTING, Event.FINISHED, ENDED),
        (RUNNING, Event.STOP_ASKED, STOPPING),
        (STOPPING, Event.STOP_ASKED, STOPPING),
        (STOPPING, Event.FINISHED, ENDED),
        (RUNNING, Event.LOST_SIGHT, ENDED),
    ],
)
def test_legal_moves(state: JobState, event: Event, after: JobState) -> None:
    assert lifecycle.advance(state, event) == after


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (STARTING, Event.STOP_ASKED),
        (RUNNING, Event.LAUNCHED),
        (RUNNING, Event.LAUNCH_FAILED),
        (STOPPING, Event.LAUNCHED),
        *((ENDED, event) for event in Event),
    ],
)
def test_illegal_moves_raise_and_name_both(state: JobState, event: Event) -> None:
    with pytest.raises(LifecycleError, match=str(state.name)) as raised:
        lifecycle.advance(state, event)
    assert (raised.value.state, raised.value.event) == (state, event)


def test_a_state_outside_the_table_has_no_moves() -> None:
    with pytest.raises(LifecycleError):
        lifecycle.advance(JobState(JobState.UNSPECIFIED), Event.LAUNCHED)


FAILURE = {"stage": "exec", "errno": 2, "detail": "not found"}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (facts(), EndReason.EXITED),
        (facts(exit_code=3), EndReason.EXITED),
        (killed(), EndReason.SIGNALED),
        (facts(exit_code=None, signal=11, core_dumped=True), EndReason.SIGNALED),
        (facts(stop_requested=True), EndReason.STOPPED),
        (killed(stop_requested=True, grace_expired=True), EndReason.STOPPED),
        (killed(timed_out=True), EndReason.TIMED_OUT),
        (killed(timed_out=True, stop_requested=True), EndReason.TIMED_OUT),
        (killed(oom_kills=1), EndReason.OOM_KILLED),
        (facts(exit_code=2, oom_kills=1), EndReason.OOM_KILLED),
        (facts(exit_code=0, oom_kills=1), EndReason.EXITED),
        (facts(exit_code=None, signal=11, oom_kills=1), EndReason.SIGNALED),
        (killed(oom_kills=1, stop_requested=True), EndReason.STOPPED),
        (killed(oom_kills=1, timed_out=True), EndReason.TIMED_OUT),
        (facts(exit_code=None, start_failure=FAILURE), EndReason.START_FAILED),
        (killed(start_failure=FAILURE, stop_requested=True, timed_out=True), EndReason.START_FAILED),
        (facts(exit_code=None), EndReason.LOST),
        (facts(exit_code=None, oom_kills=2), EndReason.LOST),
    ],
)
def test_end_reason(record: ExitRecord, reason: int) -> None:
    assert lifecycle.end_reason(record) == reason


def test_diagram_shows_every_move_and_every_reason() -> None:
    text = lifecycle.diagram()
    assert text.startswith("stateDiagram-v2\n")
    assert text.count("-->") == 2 + sum(len(moves) for moves in lifecycle.TRANSITIONS.values())
    for reason in EndReason:
        if reason:
            assert str(reason.name) in text
