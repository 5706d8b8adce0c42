"""What became of one job, held against what is known of it.

Decides what counts as lost, doubled, wrong or started twice, and what may be missing after keeper and supervisor died at
one moment: a status that says it is not known, and the output from then on. That is counted, and is no fault; a status
that is not true, or bytes that the job did not write, always are.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jobctl import Chunk, EndReason
from jobworker.outputindex import INDEX_NAME, LOG_NAME, count_records, read_records
from tests.soak.load import SIGNALED, End, Job

FAULTS = ("bytes lost", "bytes doubled", "bytes wrong", "wrong statuses", "started twice", "jobs too many")
START_FAILED, LOST = EndReason(EndReason.START_FAILED), EndReason(EndReason.LOST)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A job that has ended: how, where its files are, and what a follower of it received, if there was one.

    `risky`: it was being started when something was killed. `exposed`: it had not ended when keeper and supervisor were.
    """

    job: Job
    end: End
    directory: Path
    received: list[Chunk] | None
    risky: bool
    exposed: bool


class Tally:
    """Counts, and the faults in words."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []

    def fault(self, kind: str, what: str, *, count: int = 1) -> None:
        """Something that must not happen has."""
        self.counts[kind] += count
        self.faults.append(f"{kind}: {what}")

    def judge(self, outcome: Outcome) -> None:
        """Takes one job into account."""
        self.counts["jobs"] += 1
        job = outcome.job
        if job.starts > 1:
            self.fault("started twice", f"{job.key}: {job.starts} times")
        if outcome.end.reason == START_FAILED and job.kind.script:
            self._judge_refused(outcome)
            return
        self._judge_end(outcome)
        if outcome.end.reason != START_FAILED:
            self._judge_output(outcome)

    def _judge_refused(self, outcome: Outcome) -> None:
        if outcome.job.starts or not outcome.risky:
            self.fault("wrong statuses", f"{outcome.job.key}: could not be started, it is said")
        self.counts["never started"] += 1

    def _judge_end(self, outcome: Outcome) -> None:
        job, found, true = outcome.job, outcome.end, outcome.job.end
        if found == true:
            return
        broken_pipe = End(SIGNALED, None, signal.SIGPIPE)
        if outcome.exposed and job.kind.writes and found == broken_pipe:
            return
        is_unknown = found.reason in {LOST, true.reason} and found.exit_code is found.signal is None
        if outcome.exposed and is_unknown:
            self.counts["not known after both"] += 1
            return
        self.fault("wrong statuses", f"{job.key}: {found}, and not {true}")

    def _judge_output(self, outcome: Outcome) -> None:
        log, recorded = read_streams(outcome.directory)
        written = outcome.job.written()
        for stream, stored in recorded.items():
            self.counts["bytes recorded"] += len(stored)
            if written is not None and stored == written[stream]:
                continue
            if outcome.exposed and outcome.job.could_have_written(stream, stored):
                self.counts["cut off after both"] += 1
            else:
                self._tell_difference(
                    f"{outcome.job.key}, stream {stream}", stored, (written or {}).get(stream)
                )
        if outcome.received is not None:
            self._judge_follower(outcome.job, outcome.received, log, recorded)

    def _judge_follower(
        self, job: Job, received: list[Chunk], log: bytes, recorded: dict[int, bytes]
    ) -> None:
        offset = 0
        for chunk in received:
            if chunk.offset != offset:
                kind = "bytes lost" if chunk.offset > offset else "bytes doubled"
                self.fault(kind, f"{job.key}, its follower at {offset}", count=abs(chunk.offset - offset))
            offset = chunk.offset + len(chunk.data)
        self.counts["bytes followed"] += offset
        for stream, stored in recorded.items():
            followed = b"".join(chunk.data for chunk in received if chunk.stream == stream)
            if followed != stored:
                self._tell_difference(f"{job.key}, its follower, stream {stream}", followed, stored)
        if b"".join(chunk.data for chunk in received) != log:
            self.fault("bytes wrong", f"{job.key}, its follower: another order")

    def _tell_difference(self, where: str, found: bytes, true: bytes | None) -> None:
        if true is None:
            self.fault("bytes wrong", f"{where}: it never told how much it wrote")
        elif len(found) < len(true):
            self.fault("bytes lost", where, count=len(true) - len(found))
        elif len(found) > len(true):
            self.fault("bytes doubled", where, count=len(found) - len(true))
        else:
            self.fault("bytes wrong", where)


def read_streams(directory: Path) -> tuple[bytes, dict[int, bytes]]:
    """What is stored of a job, as it came and by stream."""
    log, index = (directory / LOG_NAME).read_bytes(), (directory / INDEX_NAME).read_bytes()
    parts: dict[int, list[bytes]] = {1: [], 2: []}
    for record in read_records(index, 0, limit=count_records(index)):
        parts[record.stream].append(log[record.start : record.end])
    return log, {stream: b"".join(pieces) for stream, pieces in parts.items()}


def summary(counts: Counter[str], names: Iterable[str]) -> str:
    """Counts in words, those that are zero too."""
    return ", ".join(f"{name} {counts[name]:,}" for name in names)
