"""The recording of output, where what a pipe holds is not what it held a moment before."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobworker import syscalls
from jobworker.outputindex import Header, pack_header
from jobworker.supervisor.recording import Recording


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    flags = os.O_RDWR | os.O_CREAT
    log, index = (os.open(tmp_path / name, flags, 0o600) for name in ("output.log", "output.idx"))
    os.write(index, pack_header(Header()))
    null = os.open("/dev/null", os.O_WRONLY)
    made = Recording(log=log, index=index, null=null)
    yield made
    made.close()
    os.close(null)


@pytest.mark.parametrize("is_open", [False, True])
def test_what_somebody_else_has_read_is_not_waited_for(
    recording: Recording, monkeypatch: pytest.MonkeyPatch, is_open: bool
) -> None:
    """Between counting and taking: a job may open its own end of the pipe for reading."""
    reader, writer = os.pipe()
    os.write(writer, b"123456789")
    if not is_open:
        os.close(writer)
    counted = syscalls.count_readable

    def count_and_read(fd: int) -> int:
        count = counted(fd)
        os.read(reader, 4)
        return count

    monkeypatch.setattr(syscalls, "count_readable", count_and_read)
    if is_open:
        with pytest.raises(BlockingIOError):
            recording.drop(reader, limit=100)
    else:
        assert recording.drop(reader, limit=100) == 9
    assert recording.dropped == 9  # too many, never too few
    os.close(reader)
    if is_open:
        os.close(writer)
