"""Drives `Jobs`, a real supervisor and real programs at random, beside an oracle that is a dictionary.

Every program waits for its order at a pipe of its own, so that it is the machine that decides when a job
ends by itself. The server is closed or crashes and comes back between any two steps; jobs end meanwhile.
"""

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from generated.jobworker.v1 import EndReason, JobFilter, JobRecord, JobSpec, JobState
from jobwire.codec import decode
from jobworker.errors import FailedPrecondition, NotFound, StartFailed, Unavailable
from jobworker.policy import Caller
from tests.harness import probes
from tests.harness.domain import ALICE, BOB, PATIENCE, ROOT, Domain
from tests.harness.processes import alive

pytestmark = probes.needs_fast_processes

T = TypeVar("T")

# $0 is where orders come from, $1 where the program says that it listens; opened both ways, so that nothing blocks
OBEDIENT = 'exec 3<>"$0"; echo up >"$1"; read code <&3; echo "$code"; exit "$code"'
STUBBORN = "trap '' TERM; " + OBEDIENT
CALLERS = (ALICE, BOB)


@dataclass
class Expected:
    """What is known of a job without asking the worker."""

    owner: Caller
    number: int
    stubborn: bool
    request_id: str
    end: tuple[int, int | None, int | None] | None = None  # reason, exit code, signal
    pids: set[int] = field(default_factory=set)


class EngineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.domain = Domain()
        self.jobs: dict[str, Expected] = {}
        self.deleted: list[str] = []
        self.count = 0

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, PATIENCE))

    @initialize()
    def open(self) -> None:
        self.run(self.domain.open())

    def teardown(self) -> None:
        try:
            self.run(self.domain.end_supervisor())
            self.run(self.domain.close())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            self.loop.close()
            self.domain.remove()

    # what the machine picks from

    def running(self) -> list[str]:
        return [job_id for job_id, job in self.jobs.items() if job.end is None]

    def ended(self) -> list[str]:
        return [job_id for job_id, job in self.jobs.items() if job.end is not None]

    def pick(self, data: st.DataObject, ids: list[str]) -> tuple[str, Expected]:
        job_id = data.draw(st.sampled_from(ids))
        note(f"job {self.jobs[job_id].number}: {self.jobs[job_id]}")
        return job_id, self.jobs[job_id]

    # rules

    @precondition(lambda self: len(self.running()) < 6)
    @rule(owner=st.sampled_from(CALLERS), stubborn=st.booleans())
    def start(self, owner: Caller, stubborn: bool) -> None:
        expected = self.expected(owner, stubborn=stubborn)
        record = self.run(self.begin(expected))
        assert record.state == JobState.RUNNING
        self.jobs[record.job_id] = expected
        self.await_ready(expected)

    @precondition(lambda self: len(self.running()) < 6)
    @rule(owner=st.sampled_from(CALLERS), turns=st.integers(1, 8))
    def start_and_crash(self, owner: Caller, turns: int) -> None:
        """The answer is lost; who asks again is told of the one job there is."""
        expected = self.expected(owner, stubborn=False)
        start = self.loop.create_task(self.begin(expected))
        for _ in range(turns):
            self.run(asyncio.sleep(0))
        self.run(self.domain.crash())
        with contextlib.suppress(Unavailable):
            self.run(start)
        self.run(self.domain.open())
        try:
            record = self.run(self.begin(expected))
        except StartFailed as error:
            expected.end = (int(EndReason.START_FAILED), None, None)
            self.jobs[error.job_id] = expected
        else:
            self.jobs[record.job_id] = expected
            self.await_ready(expected)

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
    @rule(data=st.data(), code=st.integers(0, 255))
    def exit(self, data: st.DataObject, code: int) -> None:
        job_id, expected = self.pick(data, self.running())
        self.order(expected, code)
        self.expect(job_id, EndReason.EXITED, exit_code=code)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), tree=st.booleans())
    def kill(self, data: st.DataObject, tree: bool) -> None:
        job_id, expected = self.pick(data, self.running())
        self.run(self.domain.jobs.signal(expected.owner, job_id, signal=signal.SIGKILL, tree=tree))
        self.expect(job_id, EndReason.SIGNALED, signal=signal.SIGKILL)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), caller=st.sampled_from([None, ROOT]))
    def stop(self, data: st.DataObject, caller: Caller | None) -> None:
        job_id, expected = self.pick(data, self.running())
        by = caller or expected.owner
        grace = timedelta(milliseconds=50) if expected.stubborn else None
        record = self.run(self.domain.jobs.stop(by, job_id, signal=None, grace=grace))
        assert record.stopped_by == by.client_id
        number = signal.SIGKILL if expected.stubborn else signal.SIGTERM
        self.expect(job_id, EndReason.STOPPED, signal=number, by=by)

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

    @rule(data=st.data(), code=st.integers(0, 255))
    def crash(self, data: st.DataObject, code: int) -> None:
        """Some jobs were just told to stop, some end while nobody looks: by event or by file, the end is known."""
        anyone = st.lists(st.sampled_from(self.running()), unique=True) if self.running() else st.just([])
        stopping = data.draw(anyone)
        leaving = [job_id for job_id in data.draw(anyone) if job_id not in stopping]
        for job_id in stopping:
            self.run(self.domain.jobs.stop(ROOT, job_id, signal=signal.SIGKILL, grace=None))
        self.run(self.domain.crash())
        for job_id in leaving:
            self.order(self.jobs[job_id], code)
        self.run(self.domain.open())
        for job_id in leaving:
            self.expect(job_id, EndReason.EXITED, exit_code=code)
        for job_id in stopping:
            self.expect(job_id, EndReason.STOPPED, signal=signal.SIGKILL, by=ROOT)

    # what must always hold

    @invariant()
    def records_tell_the_truth(self) -> None:
        if not hasattr(self.domain, "jobs"):
            return
        for job_id, expected in self.jobs.items():
            record = self.run(self.domain.jobs.get(expected.owner, job_id))
            if expected.end is not None:
                assert outcome(record) == expected.end
            else:
                assert record.state == JobState.RUNNING
                assert record.pid is not None
                assert alive(record.pid)
                expected.pids.add(record.pid)
            assert len(expected.pids) <= 1, "it was started more than once"

    @invariant()
    def lists_and_counts_agree(self) -> None:
        if not hasattr(self.domain, "jobs"):
            return
        assert self.domain.jobs.counts() == (len(self.running()), len(self.ended()))
        newest_first = sorted(self.jobs, key=lambda job_id: self.jobs[job_id].number, reverse=True)
        assert self.ids(ROOT, None) == newest_first
        for caller in CALLERS:
            mine = [job_id for job_id in newest_first if self.jobs[job_id].owner is caller]
            assert self.ids(caller, None) == mine
            over = JobFilter(states=[JobState(JobState.ENDED)])
            assert self.ids(caller, over) == [job_id for job_id in mine if self.jobs[job_id].end is not None]

    @invariant()
    def supervisor_holds_what_runs(self) -> None:
        if hasattr(self.domain, "jobs"):
            held = self.run(self.domain.link.list())
            assert {entry["job"] for entry in held} == set(self.running())

    # the machine's hands

    def pipe(self, name: str, expected: Expected) -> str:
        return str(self.domain.directory / f"{name}-{expected.number}")

    def expected(self, owner: Caller, *, stubborn: bool) -> Expected:
        self.count += 1
        expected = Expected(owner, self.count, stubborn, request_id=f"request-{self.count}")
        for name in ("orders", "ready"):
            os.mkfifo(self.pipe(name, expected))
            os.chmod(self.pipe(name, expected), 0o666)
        return expected

    def begin(self, expected: Expected) -> Coroutine[None, None, JobRecord]:
        script = STUBBORN if expected.stubborn else OBEDIENT
        argv = ["/bin/sh", "-c", script, self.pipe("orders", expected), self.pipe("ready", expected)]
        spec = JobSpec(argv=argv, name=f"job-{expected.number}")
        return self.domain.jobs.start(expected.owner, spec, request_id=expected.request_id, job_id=None)

    def await_ready(self, expected: Expected) -> None:
        fd = os.open(self.pipe("ready", expected), os.O_RDWR | os.O_NONBLOCK)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(PATIENCE * 1000), "the program did not start"
        os.close(fd)

    def order(self, expected: Expected, code: int) -> None:
        fd = os.open(self.pipe("orders", expected), os.O_RDWR)
        os.write(fd, f"{code}\n".encode())
        os.close(fd)

    def expect(
        self,
        job_id: str,
        reason: int,
        *,
        exit_code: int | None = None,
        signal: int | None = None,
        by: Caller | None = None,
    ) -> None:
        expected = self.jobs[job_id]
        expected.end = (int(reason), exit_code, signal)
        record = self.run(self.domain.jobs.wait(expected.owner, job_id))
        assert outcome(record) == expected.end
        assert record.termination is not None
        assert record.termination.stopped_by == (by.client_id if by else None)
        output = (self.domain.state.job(job_id) / "output.log").read_text()
        assert output == ("" if exit_code is None else f"{exit_code}\n")

    def ids(self, caller: Caller, selection: JobFilter | None) -> list[str]:
        found, token = [], ""
        while True:
            page, token = self.domain.jobs.list(caller, selection, page_size=3, page_token=token)
            found += [decode(JobRecord, record).job_id for record in page]
            if not token:
                return found


def outcome(record: JobRecord) -> tuple[int, int | None, int | None]:
    assert record.state == JobState.ENDED
    assert record.termination is not None
    return int(record.termination.reason), record.termination.exit_code, record.termination.signal


TestEngine = EngineMachine.TestCase
TestEngine.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
