"""A job's life: the one table of what may follow what, and the one rule for why a job ended.

A job is STARTING from the moment it is recorded. It is RUNNING once the kernel has executed its program,
STOPPING once somebody asked for its end, and ENDED when no process of it is left and its output is
complete. It may skip forward (a program can be gone before anybody learned that it ran), it never goes
back, and nothing happens to it after ENDED. `TRANSITIONS` says all of that: state by event gives the next
state, and a pair that is not there is illegal. `advance` raises for it and changes nothing, since it only
answers with a state; whoever keeps the record writes the answer down.

The main process's exit is not an event: whether it ends the job depends on the job (`wait_for_tree`), the
supervisor decides that, and here a job ends when the supervisor says that it has.

Why a job ended is not tracked along the way. The supervisor writes facts (a code, a signal, "the deadline
passed", "a stop was asked for", "the kernel counted out-of-memory kills"), several of which can be true
together, and `end_reason` picks one. The first of these that holds is the reason:

1. START_FAILED  the program was never executed. Nothing else can be said of it.
2. TIMED_OUT     the deadline passed and the tree was killed for it. Before STOPPED: where a stop was still
                 in its grace, it was the deadline that killed.
3. STOPPED       a stop was asked for before the job had ended, whatever the program then answered: an exit
                 code of its own, the signal, or the kill after the grace.
4. OOM_KILLED    the kernel killed a process of the job for its memory limit *and* the job came to grief:
                 the main process was killed, or exited with another code than 0, as `make` does when its
                 compiler was killed. A job that went on to exit 0 has EXITED; `oom_kills` still tells.
5. SIGNALED      a signal ended the main process, from outside or through SignalJob.
6. EXITED        the main process exited.
7. LOST          none of this is known.

Pure: no clock, no files, no asyncio. `python -m jobworker.lifecycle` prints the diagram of the table.
"""

from __future__ import annotations

import enum
import signal
from typing import TYPE_CHECKING

from generated.jobworker.v1 import EndReason, JobState

if TYPE_CHECKING:
    from jobworker.supervisor.jobfacts import ExitRecord

STARTING = JobState(JobState.STARTING)
RUNNING = JobState(JobState.RUNNING)
STOPPING = JobState(JobState.STOPPING)
ENDED = JobState(JobState.ENDED)

EXITED = EndReason(EndReason.EXITED)
SIGNALED = EndReason(EndReason.SIGNALED)
STOPPED = EndReason(EndReason.STOPPED)
TIMED_OUT = EndReason(EndReason.TIMED_OUT)
OOM_KILLED = EndReason(EndReason.OOM_KILLED)
START_FAILED = EndReason(EndReason.START_FAILED)
LOST = EndReason(EndReason.LOST)


class Event(enum.Enum):
    """What happens to a job; the value is how the diagram says it."""

    LAUNCHED = "program executed"
    LAUNCH_FAILED = "program not executed"
    STOP_ASKED = "stop asked for"
    FINISHED = "last process gone, output complete"
    LOST_SIGHT = "nothing is known of it any more"


TRANSITIONS: dict[JobState, dict[Event, JobState]] = {
    STARTING: {
        Event.LAUNCHED: RUNNING,
        Event.LAUNCH_FAILED: ENDED,
        Event.FINISHED: ENDED,
        Event.LOST_SIGHT: ENDED,
    },
    RUNNING: {
        Event.STOP_ASKED: STOPPING,
        Event.FINISHED: ENDED,
        Event.LOST_SIGHT: ENDED,
    },
    STOPPING: {
        Event.STOP_ASKED: STOPPING,
        Event.FINISHED: ENDED,
        Event.LOST_SIGHT: ENDED,
    },
    ENDED: {},
}


class LifecycleError(Exception):
    """This event cannot happen in this state; nothing was changed."""

    def __init__(self, state: JobState, event: Event) -> None:
        super().__init__(f"'{event.value}' cannot happen to a job that is {state.name}")
        self.state = state
        self.event = event


def advance(state: JobState, event: Event) -> JobState:
    """The state after the event; raises LifecycleError when the table has no such move."""
    following = TRANSITIONS.get(state, {}).get(event)
    if following is None:
        raise LifecycleError(state, event)
    return following


def end_reason(facts: ExitRecord) -> EndReason:
    """The one reason why a job ended, from the facts that its exit record holds (the order is above)."""
    failed = facts["signal"] == signal.SIGKILL or facts["exit_code"] not in (0, None)
    rules = (
        (facts["start_failure"] is not None, START_FAILED),
        (facts["timed_out"], TIMED_OUT),
        (facts["stop_requested"], STOPPED),
        (facts["oom_kills"] > 0 and failed, OOM_KILLED),
        (facts["signal"] is not None, SIGNALED),
        (facts["exit_code"] is not None, EXITED),
    )
    return next((reason for holds, reason in rules if holds), LOST)


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {STARTING.name}"]
    for state, moves in TRANSITIONS.items():
        for event, following in moves.items():
            lines.append(f"    {state.name} --> {following.name}: {event.value}")
        if not moves:
            lines.append(f"    {state.name} --> [*]")
    reasons = ", ".join(str(reason.name) for reason in EndReason if reason)
    lines.append(f"    note right of {ENDED.name}: one reason of {reasons}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(diagram())  # noqa: T201 - printing is what the command is for
