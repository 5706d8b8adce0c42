"""After the worker or the supervisor was away: what is true of a job that the records call unfinished.

Decides from three witnesses: the supervisor, which holds the jobs that run; the exit record, which the
supervisor writes before it lets go of a job; and the job's directory, in which it writes down what it begins
before it gives the order. A supervisor of another boot, or a killed one, holds nothing: such jobs are lost unless an
exit record tells their end. After a boot the directory is no witness: what was written last may not have reached the
disk. One job's damaged file decides about that job alone.
"""

from __future__ import annotations

import enum
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from generated.jobworker.v1 import JobRecord, JobSpec, JobState
from jobwire.codec import decode, encode
from jobworker import limits, records
from jobworker.lifecycle import STARTING
from jobworker.outputindex import INDEX_NAME, LOG_NAME, Header, IndexFormatError, mend, read_header
from jobworker.supervisor import exitrecord
from jobworker.supervisor.jobfiles import RUNNING_NAME

if TYPE_CHECKING:
    from jobworker.supervisor.jobfacts import Output
    from jobworker.supervisor.messages import ListedJob

NEVER_STARTED = "the worker stopped before the program was started"

logger = logging.getLogger(__name__)


class Verdict(enum.Enum):
    """What to make of a job."""

    ENDED = "its exit record tells how it ended"
    RUNS = "the supervisor holds it and its program runs"
    STARTS = "the supervisor holds it and its program is about to be executed"
    NEVER_STARTED = "the supervisor was never asked to start it"
    LOST = "it was started, and nobody knows of its end"


def decide(state: JobState, *, listed: ListedJob | None, has_exit: bool, was_begun: bool) -> Verdict:
    """The verdict on an unfinished job; an exit record that cannot be read counts as none."""
    if has_exit:
        return Verdict.ENDED
    if listed is not None:
        return Verdict.STARTS if listed["started_ns"] is None else Verdict.RUNS
    if state == STARTING and not was_begun:
        return Verdict.NEVER_STARTED
    return Verdict.LOST


def settle(
    record: JobRecord,
    *,
    listed: ListedJob | None,
    directory: Path,
    unix_nano: int,
    is_of_this_boot: bool = True,
) -> JobRecord:
    """What is true of the job now: the record given, changed, or another one in its place."""
    ended = _as_its_exit_tells(record, directory)
    was_begun = not is_of_this_boot or _was_begun(directory)
    verdict = decide(record.state, listed=listed, has_exit=ended is not None, was_begun=was_begun)
    if ended is not None:
        return ended
    if verdict is Verdict.RUNS:
        assert listed is not None
        if record.state == STARTING:
            started_ns = listed["started_ns"] or unix_nano
            records.launched(record, pid=listed["pid"], started_ns=started_ns)
        limits.take(record, listed)
    elif verdict is Verdict.NEVER_STARTED:
        records.start_failed(record, stage=records.SETUP, errno=0, detail=NEVER_STARTED, unix_nano=unix_nano)
    elif verdict is Verdict.LOST:
        _mend_output(record.job_id, directory)
        records.lost(record, output=output_info(directory), unix_nano=unix_nano)
    return record


def placeholder(job_id: str, *, owner: str, unix_nano: int) -> JobRecord:
    """A job whose record cannot be read any more: lost, with its output."""
    record = records.accept(job_id, owner=owner, spec=JobSpec(), unix_nano=unix_nano, workdir="")
    records.lost(record, output=None, unix_nano=unix_nano)
    return record


def output_info(directory: Path) -> Output | None:
    """What has been recorded of a job's output until now; None when nothing can be told."""
    try:
        size = (directory / LOG_NAME).stat().st_size
        fd = os.open(directory / INDEX_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        header = read_header(fd)
    except (OSError, IndexFormatError):  # not written yet, or damaged: then nothing is known to be dropped
        header = Header()
    finally:
        os.close(fd)
    size += header.dropped
    return {"size": size, "head": header.head, "dropped": header.dropped, "blocked": None}


def _was_begun(directory: Path) -> bool:
    """Whether the order to execute the program may have been given: what a successor has to know is written before it."""
    try:
        return bool((directory / RUNNING_NAME).read_bytes().strip(b"\0"))
    except FileNotFoundError:  # renamed since, or from before there was such a file
        return directory.exists()
    except OSError:
        return True


def _mend_output(job_id: str, directory: Path) -> None:
    """Nobody will write it any more: what a killed supervisor, or a power failure, left half done is settled."""
    try:
        mend(str(directory))
    except FileNotFoundError:
        return  # killed before it had made the files
    except (OSError, IndexFormatError) as error:
        logger.error("job %s: the index of its output stays as it is: %s", job_id, error)


def _as_its_exit_tells(record: JobRecord, directory: Path) -> JobRecord | None:
    """The record of an ended job; None, and `record` as it was, when there is no exit record that makes sense."""
    try:
        facts = exitrecord.read(str(directory))
        if facts is None:
            return None
        ended = decode(JobRecord, encode(record))
        records.finished(ended, facts)
        encode(ended)  # finds values that no field can hold
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        logger.error("job %s: its exit record is damaged: %r", record.job_id, error)
        return None
    return ended
