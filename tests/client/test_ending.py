"""How a job ended, in a number and in words; the numbers are those of the API."""

import errno

import pytest

from generated.jobworker import v1
from jobctl import ending
from jobctl.ending import Ending, Failure, parse_ending
from jobctl.errors import JobFailed
from jobctl.result import Result
from jobwire.codec import encode
from jobwire.wire import WireError

EXITED, SIGNALED, STOPPED, TIMED_OUT, OOM_KILLED, START_FAILED, LOST = range(1, 8)


def test_the_numbers_are_those_of_the_api() -> None:
    for reason in v1.EndReason:
        if reason:
            assert getattr(ending, reason.name or "") == reason
    assert v1.StartStage.EXEC == ending.STAGE_EXEC


def exec_failure(number: int) -> Failure:
    return Failure(ending.STAGE_EXEC, number, "…")


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (Ending(EXITED, exit_code=0), 0),
        (Ending(EXITED, exit_code=3), 3),
        (Ending(EXITED, exit_code=255), 255),
        (Ending(SIGNALED, signal=11), 139),
        (Ending(STOPPED, signal=15), 143),
        (Ending(STOPPED, exit_code=0), 0),
        (Ending(TIMED_OUT, signal=9), 124),
        (Ending(OOM_KILLED, signal=9), 137),
        (Ending(OOM_KILLED, exit_code=2), 2),
        (Ending(START_FAILED, failure=exec_failure(errno.ENOENT)), 127),
        (Ending(START_FAILED, failure=exec_failure(errno.ENOTDIR)), 127),
        (Ending(START_FAILED, failure=exec_failure(errno.EACCES)), 126),
        (Ending(START_FAILED, failure=exec_failure(errno.ENOEXEC)), 126),
        (Ending(START_FAILED, failure=exec_failure(errno.E2BIG)), 126),
        (Ending(START_FAILED, failure=Failure(v1.StartStage.WORKDIR, errno.ENOENT, "…")), 125),
        (Ending(START_FAILED), 125),
        (Ending(LOST), 125),
        (Ending(99), 125),
    ],
)
def test_what_a_shell_would_say(end: Ending, status: int) -> None:
    assert end.status == status


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (Ending(EXITED, exit_code=3), "exited with code 3"),
        (Ending(SIGNALED, signal=11), "killed by signal SEGV"),
        (Ending(SIGNALED, signal=99), "killed by signal 99"),
        (Ending(STOPPED, signal=15, stopped_by="alice"), "stopped by alice, killed by signal TERM"),
        (Ending(STOPPED, exit_code=0), "stopped, exited with code 0"),
        (Ending(TIMED_OUT, signal=9), "timed out, killed by signal KILL"),
        (Ending(OOM_KILLED, exit_code=2), "out of memory, exited with code 2"),
        (Ending(START_FAILED, failure=Failure(6, 2, "no such file")), "could not be started: no such file"),
        (Ending(LOST), "lost: the worker cannot know how it ended"),
        (Ending(99), "ended for reason 99"),
    ],
)
def test_in_words(end: Ending, words: str) -> None:
    assert end.words == words


def test_read_from_a_termination() -> None:
    failure = v1.StartFailure(stage=v1.StartStage(v1.StartStage.EXEC), errno=2, detail="not found")
    termination = v1.Termination(
        reason=v1.EndReason(v1.EndReason.START_FAILED),
        exit_code=0,
        signal=9,
        stopped_by="bob",
        start_failure=failure,
        oom_kills=2,
    )
    assert parse_ending(encode(termination)) == Ending(6, 0, 9, "bob", Failure(6, 2, "not found"), 2)
    assert parse_ending(b"") == Ending(0)
    with pytest.raises(WireError):
        parse_ending(b"\x0a\xff")


def test_a_result_that_is_checked() -> None:
    good = Result("0199", Ending(EXITED, exit_code=0))
    assert good.ok
    assert good.check() is good
    bad = Result("0199", Ending(EXITED, exit_code=3), stderr_tail=b"no such \xff thing\n")
    assert repr(bad) == "<Result 0199: exited with code 3>"
    with pytest.raises(JobFailed, match=r"job 0199 exited with code 3") as raised:
        bad.check()
    assert str(raised.value).endswith("no such \ufffd thing")
    assert raised.value.result is bad
    assert raised.value.stderr_tail == b"no such \xff thing\n"
    with pytest.raises(JobFailed):
        Result("0199", Ending(STOPPED, exit_code=0)).check()


def test_a_result_tells_what_the_messages_tell() -> None:
    termination = v1.Termination(reason=v1.EndReason(v1.EndReason.SIGNALED), signal=15)
    usage = v1.Usage(cpu_user_usec=5, memory_peak_bytes=1 << 20)
    result = Result("0199", parse_ending(encode(termination)), b"", encode(termination), encode(usage))
    assert (result.reason, result.exit_code, result.signal) == (v1.EndReason.SIGNALED, None, 15)
    assert (result.termination, result.usage, result.exit_status) == (termination, usage, 143)
