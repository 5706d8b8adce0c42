"""Drives the table with random events beside an oracle that is written as sentences, not as a table."""

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jobworker.lifecycle import ENDED, RUNNING, STARTING, STOPPING, Event, LifecycleError, advance


class Life:
    """What has happened to one job, kept as plain facts."""

    def __init__(self) -> None:
        self.executed = False
        self.asked_to_stop = False
        self.over = False

    def allows(self, event: Event) -> bool:
        if self.over:
            return False
        if event in (Event.LAUNCHED, Event.LAUNCH_FAILED):
            return not self.executed
        if event is Event.STOP_ASKED:
            return self.executed
        return True

    def happen(self, event: Event) -> None:
        self.executed |= event is Event.LAUNCHED
        self.asked_to_stop |= event is Event.STOP_ASKED
        self.over |= event in (Event.LAUNCH_FAILED, Event.FINISHED, Event.LOST_SIGHT)


class LifecycleMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.state = STARTING
        self.history = [STARTING]
        self.life = Life()

    @rule(event=st.sampled_from(Event))
    def happen(self, event: Event) -> None:
        note(f"{self.state.name} and {vars(self.life)}: {event.name}")
        before = self.state
        try:
            after = advance(self.state, event)
        except LifecycleError:
            assert not self.life.allows(event)
            assert self.state is before
        else:
            assert self.life.allows(event)
            self.life.happen(event)
            self.state = after
            self.history.append(after)

    @precondition(lambda self: not self.life.over)
    @rule()
    def can_always_end(self) -> None:
        assert advance(self.state, Event.FINISHED) == ENDED

    @invariant()
    def state_says_what_happened(self) -> None:
        if self.life.over:
            assert self.state == ENDED
        elif self.life.asked_to_stop:
            assert self.state == STOPPING
        else:
            assert self.state == (RUNNING if self.life.executed else STARTING)

    @invariant()
    def never_goes_back(self) -> None:
        assert self.history == sorted(self.history)


TestLifecycle = LifecycleMachine.TestCase
