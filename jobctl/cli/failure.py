"""How errors are told: two lines on stderr, or one JSON object, and the exit status that goes with each."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobctl.cli import INTERRUPTED, SIGPIPE_STATUS
from jobctl.ending import WORKER_FAILED
from jobctl.errors import AmbiguousJob, InvalidArgument, JobctlError, JobFailed, OutputGap, StartFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WRONG_USAGE = 2


def run_to_end(work: Callable[[], int], *, as_json: bool = False) -> int:
    """Does a command's work and returns its exit status, having told on stderr what went wrong."""
    gc.enable()
    try:
        status = work()
        with writing():
            sys.stdout.flush()
        return status
    except JobctlError as error:
        tell(error, as_json=as_json)
        return status_of(error)
    except BrokenPipeError:
        return SIGPIPE_STATUS
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED


@contextmanager
def writing() -> Iterator[None]:
    """Data is written to our stdout; raises JobctlError when it cannot be, BrokenPipeError when nobody reads."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise cannot_write("the output", error) from error


def cannot_write(what: str, error: OSError) -> JobctlError:
    """Our own side of things: a disk that is full, a folder that is not there."""
    return JobctlError(f"cannot write {what}: {(error.strerror or str(error)).lower()}")


def status_of(error: JobctlError) -> int:
    """127 and 126 for a program that is not there or cannot be executed, 2 for a wrong request, 125 for all else."""
    if isinstance(error, StartFailed):
        return error.exit_status
    return WRONG_USAGE if isinstance(error, InvalidArgument) else WORKER_FAILED


def tell(error: JobctlError, *, as_json: bool) -> None:
    """Says what went wrong."""
    if as_json:
        import json  # noqa: PLC0415 - errors and JSON are both the exception

        say(json.dumps({"error": facts(error)}, ensure_ascii=False))
    else:
        tell_lines(error.message, error.hint)


def tell_lines(message: str, hint: str) -> None:
    """The two lines; no second one without a hint."""
    from jobctl.cli.render import plain  # noqa: PLC0415 - errors are the exception

    say(f"error: {plain(message)}")
    if hint:
        say(f"hint: {plain(hint)}")


def note(text: str) -> None:
    """Something to know that is no error."""
    say(f"note: {text}")


def say(line: str) -> None:
    """A line to stderr. What cannot be said any more is not said: the exit status still tells."""
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def facts(error: JobctlError) -> dict[str, object]:
    """What a program may want to know of an error; absent where it has none."""
    found: dict[str, object] = {"kind": kind(error), "message": error.message, "hint": error.hint}
    if error.job_id:
        found["job_id"] = error.job_id
    match error:
        case StartFailed():
            found |= {"stage": (error.stage.name or "").lower(), "errno": error.errno, "detail": error.detail}
        case InvalidArgument():
            found["field"] = error.field
        case AmbiguousJob():
            found["candidates"] = list(error.candidates)
        case OutputGap():
            found |= {"start": error.gap.start, "end": error.gap.end}
        case JobFailed():
            found["exit_status"] = error.result.exit_status
    return found


def kind(error: JobctlError) -> str:
    """ "job_not_found" for JobNotFound."""
    name = type(error).__name__
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).removeprefix("_")
