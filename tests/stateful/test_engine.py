"""Drives `Jobs`, a real supervisor and real programs at random, and kills any of the processes between any two steps.

Beside them an oracle that is a dictionary. Whatever is killed, a job is started at most once, what it wrote is there, and
it has one true end; only when keeper and supervisor die together may output from then on be missing, and an end be said to
be unknown. Where chance decides what becomes of a job it is ended at once, since hypothesis needs the same state again.
"""

import asyncio
import contextlib
import signal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from generated.jobworker.v1 import EndReason, JobState
from jobworker.errors import StartFailed, Unavailable
from jobworker.policy import Caller
from tests.harness import probes
from tests.harness.domain import ROOT
from tests.stateful.engine import CALLERS, exited, outcome, stopped
from tests.stateful.engine_calls import BROKEN_PIPE, EngineCalls

# without cgroups nobody knows what becomes of jobs whose keeper and supervisor die together
pytestmark = [probes.needs_fast_processes, probes.needs_cgroup2]

PAIR = "keeper and supervisor"
victims = st.sampled_from(["server", "supervisor", "keeper", "upgrade", PAIR, "server, supervisor", "all"])


class EngineMachine(EngineCalls):
    @rule()
    def kill_server(self) -> None:
        self.run(self.lose("server"))

    @rule()
    def kill_supervisor(self) -> None:
        self.run(self.lose("supervisor"))

    @rule()
    def upgrade_supervisor(self) -> None:
        self.run(self.lose("upgrade"))

    @rule()
    def kill_keeper(self) -> None:
        self.run(self.lose("keeper"))

    @rule()
    def restart_both(self) -> None:
        self.run(self.lose(PAIR))

    @precondition(lambda self: len(self.running()) < 6)
    @rule(owner=st.sampled_from(CALLERS), turns=st.integers(1, 12), victim=victims)
    def start_and_kill(self, owner: Caller, turns: int, victim: str) -> None:
        """The answer is lost; who asks again is told of the one job there is."""
        expected = self.expected(owner, stubborn=False)
        start = self.loop.create_task(self.begin(expected))
        self.take_turns(turns)
        self.run(self.lose(victim))
        with contextlib.suppress(Unavailable, StartFailed):
            self.run(start)
        expected.exposed |= victim in {PAIR, "all"}
        try:
            record = self.run(self.begin(expected))
        except StartFailed as error:
            assert not self.starts(expected)
            expected.end = (int(EndReason.START_FAILED), None, None)
            self.jobs[error.job_id] = expected
            return
        self.jobs[record.job_id] = expected
        if record.state == JobState.ENDED:
            assert expected.exposed
            assert outcome(record) == (EndReason.LOST, None, None)
            expected.end = outcome(record)
            return
        self.await_told(expected)
        if victim != "server":
            self.order(expected, "exit", 0)
            self.expect_exit(record.job_id, 0)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), lines=st.integers(1, 3000), turns=st.integers(0, 12), victim=victims)
    def write_and_kill(self, data: st.DataObject, lines: int, turns: int, victim: str) -> None:
        job_id, expected = self.pick(data, self.running())
        was_exposed = expected.exposed
        self.order(expected, "write", lines)
        self.take_turns(turns)
        self.run(self.lose(victim))
        if expected.exposed and not was_exposed:  # it had written all by then, or dies of it
            expected.lines += lines
            if self.await_told(expected, pid=min(expected.pids)):
                self.order(expected, "exit", 0)
            self.expect_broken_pipe(job_id)
        else:
            self.expect_written(job_id, lines)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), code=st.integers(0, 255), turns=st.integers(0, 12), victim=victims)
    def exit_and_kill(self, data: st.DataObject, code: int, turns: int, victim: str) -> None:
        job_id, expected = self.pick(data, self.running())
        was_exposed = expected.exposed
        self.order(expected, "exit", code)
        self.take_turns(turns)
        self.run(self.lose(victim))
        if expected.exposed and not was_exposed:
            self.expect_either(job_id, code)
        else:
            self.expect_exit(job_id, code)

    @rule(data=st.data(), code=st.integers(0, 255), victim=victims)
    def kill_while_jobs_end(self, data: st.DataObject, code: int, victim: str) -> None:
        """Some were just told to stop, some end while nobody looks: by event, by file or by a successor, the end is known."""
        anyone = st.lists(st.sampled_from(self.running()), unique=True) if self.running() else st.just([])
        stopping = data.draw(anyone)
        leaving = [job_id for job_id in data.draw(anyone) if job_id not in stopping]
        were_exposed = {job_id: self.jobs[job_id].exposed for job_id in leaving}
        for job_id in stopping:
            self.run(self.domain.jobs.stop(ROOT, job_id, signal=signal.SIGKILL, grace=None))
        for job_id in leaving:
            self.order(self.jobs[job_id], "exit", code)
        self.run(self.lose(victim))
        for job_id in leaving:
            if self.jobs[job_id].exposed and not were_exposed[job_id]:
                self.expect_either(job_id, code)
            else:
                self.expect_exit(job_id, code)
        for job_id in stopping:
            self.expect(job_id, stopped(signal.SIGKILL), by=ROOT)

    # how things are killed, and what follows

    def take_turns(self, turns: int) -> None:
        """So many turns of the server's loop; the supervisor and the programs go on by themselves meanwhile."""
        for _ in range(turns):
            self.run(asyncio.sleep(0))

    def expect_either(self, job_id: str, code: int) -> None:
        """It was told to exit, which it does after a last line that perhaps nobody takes any more."""
        self.jobs[job_id].last = f"{code}\n"
        self.expect(job_id, exited(code), BROKEN_PIPE)

    async def lose(self, victim: str) -> None:
        """What is killed comes back; done when the worker is as it was, as far as it can be."""
        domain = self.domain
        if victim in {PAIR, "all"}:
            for job_id in self.running():
                self.jobs[job_id].exposed = True
        if not victim.startswith("server") and victim != "all":
            async with domain.reconnected():
                await self.strike(victim)
            return
        await self.strike(victim)
        await domain.crash()
        await domain.open()

    async def strike(self, victim: str) -> None:
        """What of it is not the server's."""
        if victim == "upgrade":
            self.domain.upgrade_supervisor()
        elif victim == "keeper":
            self.domain.kill_keeper()
        elif victim in {PAIR, "all"}:
            await self.domain.kill_pair()
        elif victim != "server":
            await self.domain.kill_supervisor()


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


class LongEngineMachine(EngineMachine):
    """The same, for as long as it takes to meet what is rare."""


TestEngine = EngineMachine.TestCase
TestEngine.settings = examples(10)

TestEngineLong = pytest.mark.slow(LongEngineMachine.TestCase)
TestEngineLong.settings = examples(300)
