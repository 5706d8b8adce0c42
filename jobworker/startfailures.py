"""What a failed start is called for people, and what they can do about it.

Pure. The detail comes from the step that failed; here it gets its sentence and its hint.
"""

from __future__ import annotations

import errno

from generated.jobworker.v1 import JobRecord, StartFailure, StartStage
from jobworker.errors import StartFailed

SHOWN = 200  # characters of a program's name in an error
ASK_LOG = "the worker's supervisor.log may tell more"

STAGE_HINTS: dict[int, str] = {
    StartStage.SETUP: ASK_LOG,
    StartStage.CGROUP: ASK_LOG,
    StartStage.LIMIT: "leave that limit out, give another value, or start the job with --best-effort",
    StartStage.USER: "name a user that the worker's host has and the worker may become",
    StartStage.WORKDIR: "make the directory on the worker, or leave the workdir out",
}
EXEC_HINTS: dict[int, str] = {
    errno.ENOENT: "the path is one on the worker",
    errno.EACCES: "it must be an executable file: chmod +x it, or run its interpreter with the file as argument",
    errno.ENOEXEC: "begin the script with #!/bin/sh, or run its interpreter with the file as argument",
    errno.E2BIG: "pass large data in a file",
}
NOT_IN_PATH = "give an absolute path, or set the job's path with --env PATH=…"


def explain(record: JobRecord) -> StartFailed:
    """The error for a record whose reason is START_FAILED."""
    termination = record.termination
    failure = None if termination is None else termination.start_failure
    assert failure is not None
    program = record.spec.argv[0]
    shown = program if len(program) <= SHOWN else program[:SHOWN] + "…"
    return StartFailed(
        f"cannot start '{shown}': {failure.detail}",
        failure=failure,
        record=record,
        hint=_hint(program, failure),
        job_id=record.job_id,
    )


def _hint(program: str, failure: StartFailure) -> str:
    if failure.stage != StartStage.EXEC:
        return STAGE_HINTS.get(failure.stage, "")
    if failure.errno == errno.ENOENT and "/" not in program:
        return NOT_IN_PATH
    return EXEC_HINTS.get(failure.errno, "")
