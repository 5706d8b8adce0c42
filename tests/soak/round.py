"""One round: load, something killed in the middle of it, and everything that was loaded seen to its end.

Decides the order of things and who was where when something was killed; what is then true of a job is `verdict`'s
business. Starts are asked for again, with the same request ids, until they are answered, and once more after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from pathlib import Path

import jobctl
from jobctl.requests import JobOptions
from tests.harness import Worker
from tests.soak import kills, load
from tests.soak.load import End, Job, Kind
from tests.soak.verdict import Outcome, Tally

PATIENCE = 90.0  # seconds for a round, which takes about two
BRIEF = 12


@dataclass(slots=True)
class Run:
    """A job of this round, as far as it has come."""

    job: Job
    job_id: str = ""
    failure: bool = False  # it could not be started
    risky: bool = False
    exposed: bool = False
    end: End | None = None
    received: list[jobctl.Chunk] | None = None
    ids: set[str] = field(default_factory=set)


class Round:
    """`number` gives it its directory and its label, `choice` all that is left to chance."""

    def __init__(
        self, worker: Worker, client: jobctl.Client, tally: Tally, *, number: int, choice: random.Random
    ) -> None:
        self._worker = worker
        self._client = client
        self._tally = tally
        self._choice = choice
        self._label = str(number)
        self._directory = worker.directory / f"round-{number}"
        self._runs: list[Run] = []

    async def play(self) -> None:
        """The whole round; TimeoutError when something in it never comes."""
        self._directory.mkdir()
        self._directory.chmod(0o777)
        async with asyncio.timeout(PATIENCE):
            steady = [Run(job) for job in load.steady(self._choice, self._directory)]
            self._runs += steady
            await asyncio.gather(*[self._start(run) for run in steady])
            followers = [asyncio.create_task(self._follow(run)) for run in steady if run.job.kind.told]
            await self._kill_meanwhile()
            await asyncio.gather(*[self._start_again(run) for run in self._runs])
            await asyncio.gather(*[self._end(run) for run in self._runs if not run.failure])
            await asyncio.gather(*followers)
            await self._compare()

    async def _kill_meanwhile(self) -> None:
        brief = [Run(job) for job in load.brief(self._choice, self._directory, count=BRIEF)]
        self._runs += brief
        moments = kills.choose(self._choice)
        spread = [self._choice.uniform(0, 0.25) for _ in brief]
        starts = [self._start_later(run, pause) for run, pause in zip(brief, spread, strict=True)]
        await asyncio.gather(*starts, *[self._kill(name, after) for after, name in moments])

    async def _kill(self, name: str, after: float) -> None:
        """At a moment that is left to chance: there is nothing to wait for."""
        await asyncio.sleep(after)
        for run in self._runs:
            run.risky |= not run.job_id
            run.exposed |= name == "both" and not self._has_ended(run)
        if await kills.KILLS[name](self._worker):
            self._tally.counts[f"kills: {name}"] += 1

    def _has_ended(self, run: Run) -> bool:
        return run.job_id != "" and (self._worker.job_directory(run.job_id) / "exit").exists()

    async def _start_later(self, run: Run, pause: float) -> None:
        await asyncio.sleep(pause)
        if self._choice.random() < 0.3:
            await self._run(run)
        else:
            await self._start(run)
            if not run.failure and run.job.kind.name in ("loud", "quick"):
                await self._follow(run)

    async def _start(self, run: Run) -> None:
        """Asks until there is an answer; the library asks again by itself for some seconds."""
        while True:
            try:
                job = await self._client.start(
                    run.job.argv, request_id=run.job.key, **self._options(run.job.kind)
                )
            except jobctl.StartFailed as error:
                self._started(run, error.job_id, failed=True)
                return
            except jobctl.Unavailable:
                continue
            self._started(run, job.id)
            return

    async def _run(self, run: Run) -> None:
        """Starts and follows in one call, over all that breaks meanwhile."""
        received: list[jobctl.Chunk] = []
        options = self._options(run.job.kind)
        try:
            async with self._client.stream(run.job.argv, request_id=run.job.key, **options) as output:
                async for chunk in output:
                    received.append(chunk)
        except jobctl.StartFailed as error:
            self._started(run, error.job_id, failed=True)
            return
        self._started(run, output.job_id)
        run.received = received
        self._take_end(run, output.result)

    def _options(self, kind: Kind) -> JobOptions:
        options: JobOptions = {"labels": {"round": self._label}, "wait_for_tree": kind.wait_for_tree}
        if kind.timeout is not None:
            options["timeout"] = kind.timeout
        return options

    def _started(self, run: Run, job_id: str | None, *, failed: bool = False) -> None:
        run.job_id = job_id or ""
        run.failure = failed
        run.ids.add(run.job_id)

    async def _start_again(self, run: Run) -> None:
        """The same request, once more: the same job."""
        before = run.failure
        await self._start(run)
        self._tally.counts["starts repeated"] += 1
        if len(run.ids) > 1 or run.failure != before:
            self._tally.fault("started twice", f"{run.job.key}: {run.ids}")

    async def _follow(self, run: Run) -> None:
        run.received = []
        output = self._client.job(run.job_id).output()
        async with output:
            async for chunk in output:
                run.received.append(chunk)
        self._take_end(run, output.result)

    async def _end(self, run: Run) -> None:
        """Does what the job waits for, and waits for it."""
        job, kind = self._client.job(run.job_id), run.job.kind
        if kind.told:
            run.job.tell_to_end()
        if kind.name == "sleeper":
            await job.stop()
        elif kind.ended_by is not None:
            await _signal(job, kind.ended_by)
        self._take_end(run, await job.wait())

    def _take_end(self, run: Run, result: jobctl.Result | None) -> None:
        """Told by whoever heard of it first; all must say the same."""
        assert result is not None, "a stream has ended, and the job has not"
        end = End(result.reason, result.exit_code, result.signal)
        if run.end is not None and run.end != end:
            self._tally.fault("wrong statuses", f"{run.job.key}: {run.end}, and then {end}")
        run.end = end

    async def _compare(self) -> None:
        listed = [job async for job in self._client.list(labels={"round": self._label})]
        for job_id in {job.id for job in listed} ^ {run.job_id for run in self._runs}:
            self._tally.fault("jobs too many", job_id)
        for run in self._runs:
            self._tally.judge(self._outcome(run))
        if not self._tally.faults:
            for job in listed:
                await job.delete()

    def _outcome(self, run: Run) -> Outcome:
        end = run.end or End(jobctl.EndReason(jobctl.EndReason.START_FAILED))
        directory: Path = self._worker.job_directory(run.job_id)
        return Outcome(run.job, end, directory, run.received, run.risky, run.exposed)


async def _signal(job: jobctl.Job, number: int) -> None:
    """The library never sends a signal twice; this one may be, and may have had its effect."""
    with contextlib.suppress(jobctl.FailedPrecondition):
        while True:
            try:
                return await job.signal(number)
            except jobctl.Unavailable:
                await job.refresh()
