"""What callers and programs do to jobs, as rules: start, write, exit, stop, signal, look, delete; and the server restarts.

Each rule sees what it has begun to its end. What happens when something is killed meanwhile is in other rules.
"""

import os
import signal
from datetime import timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from generated.jobworker.v1 import EndReason, JobSpec, JobState
from jobworker.errors import FailedPrecondition, NotFound, StartFailed
from jobworker.policy import Caller
from tests.harness.domain import ROOT
from tests.stateful.engine import CALLERS, EngineBase, Expected, exited, outcome, signalled, stopped

BROKEN_PIPE = signalled(signal.SIGPIPE)


class EngineCalls(EngineBase):
    @precondition(lambda self: len(self.running()) < 6)
    @rule(owner=st.sampled_from(CALLERS), stubborn=st.booleans())
    def start(self, owner: Caller, stubborn: bool) -> None:
        expected = self.expected(owner, stubborn=stubborn)
        record = self.run(self.begin(expected))
        assert record.state == JobState.RUNNING
        self.jobs[record.job_id] = expected
        self.await_told(expected)

    @rule(owner=st.sampled_from(CALLERS))
    def start_what_is_not_there(self, owner: Caller) -> None:
        self.count += 1
        request_id = f"request-{self.count}"
        failures = []
        for _ in range(2):
            spec = JobSpec(argv=["/no/such"])
            start = self.domain.jobs.start(owner, spec, request_id=request_id, job_id=None)
            with pytest.raises(StartFailed) as raised:
                self.run(start)
            failures.append((raised.value.job_id, raised.value.errno))
        assert failures[0] == failures[1]
        end = (int(EndReason.START_FAILED), None, None)
        self.jobs[failures[0][0]] = Expected(owner, self.count, False, request_id, end=end)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def start_again(self, data: st.DataObject) -> None:
        job_id, expected = self.pick(data, list(self.jobs))
        again = self.domain.jobs.start(
            expected.owner, JobSpec(argv=["false"]), request_id=expected.request_id, job_id=None
        )
        if expected.end == (EndReason.START_FAILED, None, None):
            with pytest.raises(StartFailed) as raised:
                self.run(again)
            assert raised.value.job_id == job_id
        else:
            assert self.run(again).job_id == job_id

    @precondition(lambda self: self.running())
    @rule(data=st.data(), lines=st.integers(1, 2000))
    def write(self, data: st.DataObject, lines: int) -> None:
        job_id, expected = self.pick(data, self.running())
        self.order(expected, "write", lines)
        self.expect_written(job_id, lines)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), code=st.integers(0, 255))
    def exit(self, data: st.DataObject, code: int) -> None:
        job_id, expected = self.pick(data, self.running())
        self.order(expected, "exit", code)
        self.expect_exit(job_id, code)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), tree=st.booleans())
    def kill(self, data: st.DataObject, tree: bool) -> None:
        job_id, expected = self.pick(data, self.running())
        self.run(self.domain.jobs.signal(expected.owner, job_id, signal=signal.SIGKILL, tree=tree))
        self.expect(job_id, signalled(signal.SIGKILL))

    @precondition(lambda self: self.running())
    @rule(data=st.data(), caller=st.sampled_from([None, ROOT]))
    def stop(self, data: st.DataObject, caller: Caller | None) -> None:
        job_id, expected = self.pick(data, self.running())
        by = caller or expected.owner
        grace = timedelta(milliseconds=50) if expected.stubborn else None
        record = self.run(self.domain.jobs.stop(by, job_id, signal=None, grace=grace))
        assert record.stopped_by == by.client_id
        number = signal.SIGKILL if expected.stubborn else signal.SIGTERM
        self.expect(job_id, stopped(number), by=by)

    @precondition(lambda self: self.ended())
    @rule(data=st.data())
    def stop_or_signal_what_has_ended(self, data: st.DataObject) -> None:
        job_id, expected = self.pick(data, self.ended())
        stopped = self.run(self.domain.jobs.stop(expected.owner, job_id, signal=9, grace=None))
        assert outcome(stopped) == expected.end
        with pytest.raises(FailedPrecondition):
            self.run(self.domain.jobs.signal(expected.owner, job_id, signal=9, tree=True))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        job_id, expected = self.pick(data, list(self.jobs))
        deletion = self.domain.jobs.delete(expected.owner, job_id)
        if expected.end is None:
            with pytest.raises(FailedPrecondition):
                self.run(deletion)
            return
        self.run(deletion)
        del self.jobs[job_id]
        self.deleted.append(job_id)
        for place in (self.domain.state.jobs, self.domain.state.scratch):
            assert job_id not in os.listdir(place)

    @precondition(lambda self: self.jobs or self.deleted)
    @rule(data=st.data())
    def look_at_what_does_not_exist(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from([*self.jobs, *self.deleted]))
        owner = self.jobs[job_id].owner if job_id in self.jobs else None
        strangers = [caller for caller in CALLERS if caller is not owner]
        for caller in strangers:
            with pytest.raises(NotFound):
                self.run(self.domain.jobs.get(caller, job_id))

    @rule()
    def restart(self) -> None:
        self.run(self.domain.restart())

    # what follows from an order

    def expect_written(self, job_id: str, lines: int) -> None:
        """Whoever writes what nobody takes dies of it."""
        expected = self.jobs[job_id]
        expected.lines += lines
        if self.await_told(expected, pid=min(expected.pids)):
            assert not expected.exposed
        else:
            assert expected.exposed
            self.expect_broken_pipe(job_id)

    def expect_exit(self, job_id: str, code: int) -> None:
        expected = self.jobs[job_id]
        expected.last = f"{code}\n"
        if expected.exposed:
            self.expect_broken_pipe(job_id)
        else:
            self.expect(job_id, exited(code))

    def expect_broken_pipe(self, job_id: str) -> None:
        self.expect(job_id, BROKEN_PIPE)
