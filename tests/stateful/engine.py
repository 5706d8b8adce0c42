"""The engine machine's oracle, hands and eyes: what is known of each job, how it is told what to do, what must always hold.

Every program waits for its orders at a pipe of its own and tells at another when it has carried one out, so that it is
the machine that decides what is written and when a job ends by itself. What may be done is in the rules that are built on
this.
"""

import asyncio
import contextlib
import os
import select
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, field
from typing import TypeVar

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from generated.jobworker.v1 import EndReason, JobFilter, JobRecord, JobSpec, JobState
from jobwire.codec import decode
from jobworker.outputindex import STDERR, STDOUT
from jobworker.policy import Caller
from tests.harness import stranger
from tests.harness.domain import ALICE, BOB, PATIENCE, ROOT, Domain
from tests.harness.processes import alive

T = TypeVar("T")

End = tuple[int, int | None, int | None]  # reason, exit code, signal

# $0 is where orders come from, opened both ways so that nothing blocks; $1 where the program says that it listens, or has
# written; $2 gets a byte for each start. Longer lines than they need be, so that a pipe is soon full.
OBEDIENT = """
    exec 3<>"$0"; printf x >>"$2"; echo up >"$1"; n=0
    while read verb number <&3; do
        [ "$verb" = write ] || { echo "$number"; exit "$number"; }
        number=$((number + n))
        while [ $n -lt $number ]; do echo "$n out $3"; echo "$n err $3" >&2; n=$((n + 1)); done
        echo written >"$1"
    done"""
STUBBORN = "trap '' TERM; " + OBEDIENT
PADDING = "." * 100
CALLERS = (ALICE, BOB)


@dataclass
class Expected:
    """What is known of a job without asking the worker.

    `lines` were written to each stream, `last` to stdout at the end. Nobody holds the pipes of one that is `exposed`: it
    dies when it writes, what it wrote before may be cut off, and how it ended may not be known.
    """

    owner: Caller
    number: int
    stubborn: bool
    request_id: str
    end: End | None = None
    pids: set[int] = field(default_factory=set)
    lines: int = 0
    last: str = ""
    exposed: bool = False

    def written(self) -> dict[int, bytes]:
        """Each stream, whole."""
        out = "".join(f"{number} out {PADDING}\n" for number in range(self.lines)) + self.last
        err = "".join(f"{number} err {PADDING}\n" for number in range(self.lines))
        return {STDOUT: out.encode(), STDERR: err.encode()}


class EngineBase(RuleBasedStateMachine):
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
            assert self.starts(expected) <= 1, "it was started more than once"

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

    def place(self, name: str, expected: Expected) -> str:
        return str(self.domain.directory / f"{name}-{expected.number}")

    def expected(self, owner: Caller, *, stubborn: bool) -> Expected:
        self.count += 1
        expected = Expected(owner, self.count, stubborn, request_id=f"request-{self.count}")
        for name in ("orders", "ready", "starts"):
            (os.mknod if name == "starts" else os.mkfifo)(self.place(name, expected))
            os.chmod(self.place(name, expected), 0o666)
        return expected

    def starts(self, expected: Expected) -> int:
        """How often its program has begun."""
        path = self.place("starts", expected)
        return os.path.getsize(path) if os.path.exists(path) else 0

    def begin(self, expected: Expected) -> Coroutine[None, None, JobRecord]:
        script = STUBBORN if expected.stubborn else OBEDIENT
        places = [self.place(name, expected) for name in ("orders", "ready", "starts")]
        spec = JobSpec(argv=["/bin/sh", "-c", script, *places, PADDING], name=f"job-{expected.number}")
        return self.domain.jobs.start(expected.owner, spec, request_id=expected.request_id, job_id=None)

    def await_told(self, expected: Expected, *, pid: int | None = None) -> bool:
        """Returns once the program has said that it is ready, or has written; False when that process ends without a word."""
        with contextlib.ExitStack() as open_files:
            poll = select.poll()
            fd = os.open(self.place("ready", expected), os.O_RDWR | os.O_NONBLOCK)
            open_files.callback(os.close, fd)
            poll.register(fd, select.POLLIN)
            patience = PATIENCE * 1000
            try:
                pidfd = -1 if pid is None else os.pidfd_open(pid)
            except ProcessLookupError:
                pidfd, patience = -1, 0
            if pidfd >= 0:
                open_files.callback(os.close, pidfd)
                poll.register(pidfd, select.POLLIN)
            assert poll.poll(patience) or not patience, "the program says nothing"
            told = fd in dict(poll.poll(0))
            if told:
                os.read(fd, 100)
            return told

    def order(self, expected: Expected, verb: str, number: int) -> None:
        fd = os.open(self.place("orders", expected), os.O_RDWR)
        os.write(fd, f"{verb} {number}\n".encode())
        os.close(fd)

    def expect(self, job_id: str, *ends: End, by: Caller | None = None) -> None:
        """Waits for the job's end, which is one of these, and looks at all that is left of it."""
        expected = self.jobs[job_id]
        record = self.run(self.domain.jobs.wait(expected.owner, job_id))
        end = expected.end = outcome(record)
        is_unknown = (
            end[0] in {EndReason.LOST, *(reason for reason, _, _ in ends)} and end[1] is end[2] is None
        )
        assert end in ends or (expected.exposed and is_unknown)
        assert record.termination is not None
        is_stopped = end[0] == EndReason.STOPPED
        assert record.termination.stopped_by == (by.client_id if by and is_stopped else None)
        self.check_output(job_id, expected)

    def check_output(self, job_id: str, expected: Expected) -> None:
        """All that it wrote, stream by stream; of one that was exposed the beginning of it."""
        stored = stranger.streams(stranger.read(self.domain.state.job(job_id)))
        for stream, written in expected.written().items():
            if expected.exposed:
                assert written.startswith(stored[stream])
            else:
                assert stored[stream] == written

    def ids(self, caller: Caller, selection: JobFilter | None) -> list[str]:
        found, token = [], ""
        while True:
            page, token = self.domain.jobs.list(caller, selection, page_size=3, page_token=token)
            found += [decode(JobRecord, record).job_id for record in page]
            if not token:
                return found


def outcome(record: JobRecord) -> End:
    assert record.state == JobState.ENDED
    assert record.termination is not None
    return int(record.termination.reason), record.termination.exit_code, record.termination.signal


def exited(code: int) -> End:
    return int(EndReason.EXITED), code, None


def signalled(number: int) -> End:
    return int(EndReason.SIGNALED), None, int(number)


def stopped(number: int) -> End:
    return int(EndReason.STOPPED), None, int(number)
