"""A small log, its writer killed at every step, its disk full, its head cut off, beside an oracle: one bytes object per stream.

The writer is the supervisor's own `Capture`, on real pipes and files; what is on disk is read by a reader that was
written from docs/on-disk.md alone. Nothing may be missing that no gap tells of, nothing may be there twice, and the
order within a stream is kept.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jobworker import indexcheck, outputindex, syscalls
from jobworker.outputindex import INDEX_NAME, LOG_NAME, RECORD_SIZE, STDERR, STDOUT
from jobworker.supervisor import capture as capture_module
from jobworker.supervisor import jobfiles
from jobworker.supervisor.cap import ALL, KEEPS, NEWEST, OLDEST, Cap
from jobworker.supervisor.capture import Capture
from jobworker.supervisor.disk import Disk
from jobworker.supervisor.loop import Loop
from tests.harness import stranger

RETRY_NS = 20_000
STREAMS = (STDOUT, STDERR)
TURNS = 10_000  # more than anything here takes
CALLS = ((os, "splice"), (os, "pwrite"), (os, "ftruncate"), (syscalls, "punch_hole"))


class Killed(BaseException):
    """The process is gone: no handler of the code under test may run."""


class Faults:
    """Stands between the code under test and the kernel."""

    def __init__(self, *, null: int) -> None:
        self.null = null  # /dev/null is never full
        self.fuse: int | None = None  # calls until the process is killed
        self.tears = False  # whether a record that is being written then is torn
        self.space: int | None = None  # calls until the disk is full
        self.longest: int | None = None  # bytes a splice moves at most

    @contextmanager
    def between(self) -> Iterator[None]:
        patches = [patch.object(place, name, self._wrap(getattr(place, name))) for place, name in CALLS]
        for each in patches:
            each.start()
        try:
            yield
        finally:
            for each in patches:
                each.stop()

    def _wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        name = call.__name__

        def wrapped(*arguments: Any, **options: Any) -> Any:
            if self.fuse is not None:
                if not self.fuse:
                    if name == "pwrite" and self.tears and len(arguments[1]) == RECORD_SIZE:
                        call(arguments[0], arguments[1][:11], arguments[2])
                    raise Killed
                self.fuse -= 1
            needs_space = name != "ftruncate" and not (name == "splice" and arguments[1] == self.null)
            if needs_space and self.space is not None:
                if not self.space:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self.space -= 1
            if name == "splice" and self.longest is not None:
                source, target, count = arguments
                arguments = source, target, min(count, self.longest)
            return call(*arguments, **options)

        return wrapped


class Follower:
    """Reads now and then, from where it stopped; knows of each stream how far it is, or that a gap came in between."""

    def __init__(self) -> None:
        self.cursor = 0
        self.reached = {STDOUT: 0, STDERR: 0}
        self.is_sure = True

    def take(self, found: list[stranger.Found], written: dict[int, bytes]) -> None:
        for stream, offset, part in found:
            assert offset == self.cursor, "a gap that nobody tells of, or bytes twice"
            if isinstance(part, int):
                self.cursor, self.is_sure = part, False
                continue
            assert isinstance(stream, int)
            self.cursor += len(part)
            place = written[stream].find(part, self.reached[stream])
            assert place >= 0, "bytes that were never written, or not in this order"
            assert place == self.reached[stream] or not self.is_sure
            self.reached[stream] = place + len(part)


class OutputMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="jobworker-output-"))
        self.jobs_fd = os.open(self.place, os.O_RDONLY | os.O_DIRECTORY)
        self.null = os.open("/dev/null", os.O_WRONLY)
        self.faults = Faults(null=self.null)
        self.number = 0
        self.capture: Capture | None = None
        self.readers: dict[int, int] = {}
        self.writers: dict[int, int] = {}
        self.retry = patch.object(capture_module, "_RETRY_NS", RETRY_NS)
        self.retry.start()

    def teardown(self) -> None:
        try:
            if self.capture is not None:
                self.end(fuse=None)
        finally:
            self.retry.stop()
            os.close(self.null)
            os.close(self.jobs_fd)
            shutil.rmtree(self.place)

    @precondition(lambda self: self.capture is None)
    @rule(keep=st.sampled_from(KEEPS), max_bytes=st.none() | st.integers(0, 3000))
    def begin(self, keep: str, max_bytes: int | None) -> None:
        self.cap = Cap(max_bytes, keep)
        self.number += 1
        self.directory = self.place / f"job-{self.number}"
        for fd in jobfiles.create(self.number, jobs_fd=self.jobs_fd):
            os.close(fd)
        jobfiles.claim(self.number, self.directory.name, jobs_fd=self.jobs_fd)
        for stream in STREAMS:
            self.readers[stream], self.writers[stream] = os.pipe2(os.O_NONBLOCK)
        self.bytes = {stream: Random(stream) for stream in STREAMS}
        self.written = dict.fromkeys(STREAMS, b"")
        self.follower = Follower()
        self.surplus = 0  # by how much `dropped` may be too large
        self.has_ended = False
        self.open()

    # what the job and its disk do

    @precondition(lambda self: self.capture is not None)
    @rule(stream=st.sampled_from(STREAMS), size=st.integers(1, 2000))
    def write(self, stream: int, size: int) -> None:
        if stream in self.writers:
            part = self.bytes[stream].randbytes(size)
            self.written[stream] += part[: os.write(self.writers[stream], part)]

    @precondition(lambda self: self.capture is not None)
    @rule(stream=st.sampled_from(STREAMS))
    def close_a_stream(self, stream: int) -> None:
        if stream in self.writers:
            os.close(self.writers.pop(stream))

    @rule(longest=st.none() | st.integers(1, 500))
    def move_less_at_a_time(self, longest: int | None) -> None:
        self.faults.longest = longest

    # what the supervisor does

    @precondition(lambda self: self.capture is not None)
    @rule(count=st.integers(1, 3), space=st.none() | st.integers(0, 6))
    def turn(self, count: int, space: int | None) -> None:
        self.faults.space = space
        self.survive(lambda: self.run(count))

    @precondition(lambda self: self.capture is not None)
    @rule(
        stream=st.sampled_from(STREAMS),
        size=st.integers(1, 2000),
        fuse=st.integers(0, 8),
        tears=st.booleans(),
        fuse_of_the_next=st.integers(0, 4),
        space_of_the_next=st.none() | st.integers(0, 4),
    )
    def be_killed(
        self,
        *,
        stream: int,
        size: int,
        fuse: int,
        tears: bool,
        fuse_of_the_next: int,
        space_of_the_next: int | None,
    ) -> None:
        """After so many more system calls; who takes over may be killed as well while it mends, or find the disk full."""
        self.write(stream, size)
        self.faults.fuse, self.faults.tears, self.faults.space = fuse, tears, None
        self.survive(self.settle, fuse_of_the_next=fuse_of_the_next, space_of_the_next=space_of_the_next)
        self.faults.fuse = None

    @precondition(lambda self: self.capture is not None)
    @rule()
    def rest(self) -> None:
        self.faults.space = None
        self.survive(self.settle)
        self.verify(self.directory, self.written, is_at_rest=True)

    @precondition(lambda self: self.capture is not None)
    @rule(fuse=st.none() | st.integers(0, 8))
    def end(self, fuse: int | None) -> None:
        self.faults.fuse, self.faults.space = fuse, None
        done: list[bool] = []
        while not done:
            self.survive(lambda: self.finish(done))
        self.faults.fuse = None
        self.has_ended = True
        self.verify(self.directory, self.written, is_at_rest=True)
        self.follower.take(stranger.read(self.directory, self.follower.cursor), self.written)
        for fd in (*self.readers.values(), *self.writers.values()):
            os.close(fd)
        self.readers.clear()
        self.writers.clear()
        self.capture = None

    @precondition(lambda self: self.capture is not None)
    @rule(again=st.booleans())
    def follow(self, again: bool) -> None:
        """On and on, or from the beginning in between."""
        found = stranger.read(self.directory, self.follower.cursor, has_ended=False)
        self.follower.take(found, self.written)
        if again:
            Follower().take(stranger.read(self.directory, has_ended=False), self.written)

    @invariant()
    def it_is_told_what_the_disk_refuses(self) -> None:
        if self.capture is not None:
            assert self.disk.blocked == (self.capture.describe()["blocked"] == "disk")

    # how that is done

    def open(self) -> None:
        """A new writer takes over the files, and the pipes, in which nothing is lost meanwhile."""
        self.loop = Loop()
        self.disk = Disk(self.loop, lambda blocked: None)
        names = (self.directory / LOG_NAME, self.directory / INDEX_NAME)
        log, index = (os.open(name, os.O_RDWR) for name in names)
        try:
            with self.faults.between():
                self.capture = Capture(
                    self.loop, self.disk, log=log, index=index, null=self.null, cap=self.cap
                )
        except BaseException:
            os.close(log)
            os.close(index)
            raise
        self.capture.attach(stdout=os.dup(self.readers[STDOUT]), stderr=os.dup(self.readers[STDERR]))

    def abandon(self) -> None:
        if self.capture is not None:
            for fd in self.capture._pipes.values():
                os.close(fd)
            self.capture._recording.close()
        self.capture = None

    def survive(
        self,
        action: Callable[[], object],
        *,
        fuse_of_the_next: int | None = None,
        space_of_the_next: int | None = None,
    ) -> None:
        """Does what may kill the writer; if it does, sees what that leaves, and lets another one take over."""
        try:
            with self.faults.between():
                action()
        except Killed:
            self.abandon()
            waiting = {stream: syscalls.count_readable(fd) for stream, fd in self.readers.items()}
            note(f"killed with {waiting} in the pipes")
            self.surplus += sum(waiting.values())
            taken = {stream: data[: len(data) - waiting[stream]] for stream, data in self.written.items()}
            self.verify_given_up(taken)
            self.faults.fuse, self.faults.space = fuse_of_the_next, space_of_the_next
            self.take_over()

    def take_over(self) -> None:
        while self.capture is None:
            try:
                self.open()
            except Killed:
                self.faults.fuse = None
        self.faults.fuse = None

    def run(self, turns: int = 1) -> None:
        for _ in range(turns):
            self.loop.defer(self.loop.stop)
            self.loop.run()

    def settle(self) -> None:
        """Turns until nothing moves any more."""
        assert self.capture is not None
        before = None
        for _ in range(TURNS):
            self.run()
            output = self.capture.describe()
            now = [output, *map(syscalls.count_readable, self.readers.values())]
            if now == before and (output["blocked"] != "disk" or self.faults.space == 0):
                return
            before = now
        raise AssertionError(f"it does not come to rest: {before}")

    def finish(self, done: list[bool]) -> None:
        assert self.capture is not None
        self.capture.finish(lambda: done.append(True))
        for _ in range(TURNS):
            if done:
                return
            self.run()
        raise AssertionError("it does not end")

    # what must be true

    def verify_given_up(self, taken: dict[int, bytes]) -> None:
        """As they are, and once they are mended, the files say the same to all; nobody takes over in this copy."""
        copy = self.place / "given-up"
        shutil.copytree(self.directory, copy)
        found = stranger.read(copy)
        outputindex.mend(str(copy))
        assert outputindex.mend(str(copy)) is None
        assert stranger.read(copy) == found
        self.verify(copy, taken, is_at_rest=False)
        shutil.rmtree(copy)

    def verify(self, directory: Path, taken: dict[int, bytes], *, is_at_rest: bool) -> None:
        """The files hold, or tell of, each byte that was taken."""
        found = stranger.read(directory)
        _, head, dropped = stranger.header(directory)
        size = (directory / LOG_NAME).stat().st_size
        assert list_wrong(directory, size) == []
        stored, total = stranger.streams(found), sum(map(len, taken.values()))
        note(f"head {head}, size {size}, dropped {dropped} of {total}")
        assert sum(map(len, stored.values())) == size - head
        limit = self.cap.max_bytes
        if limit is None or self.cap.keep == NEWEST:
            assert all(taken[stream].endswith(stored[stream]) for stream in taken)
            assert (size, dropped) == (total, 0)
            assert limit is None or not is_at_rest or size - head <= limit
            assert head == 0 or (limit is not None and size > limit)
            return
        assert all(taken[stream].startswith(stored[stream]) for stream in taken)
        assert head == 0
        if self.cap.keep == OLDEST:
            assert size == min(limit, total)
            assert 0 <= dropped - (total - size) <= self.surplus
        else:
            assert dropped == 0
            self.verify_all(size, total, limit)

    def verify_all(self, size: int, total: int, limit: int) -> None:
        assert self.cap.keep == ALL
        if self.has_ended:
            assert size == total
        elif self.capture is not None:
            assert size == min(limit, total)
            assert (self.capture.describe()["blocked"] == "cap") == (total > limit)
        else:
            assert size == total  # of what was taken


def list_wrong(directory: Path, size: int) -> list[str]:
    view = (directory / INDEX_NAME).read_bytes()
    header = outputindex.unpack_header(view)
    return list(indexcheck.check(view, header, log_size=size, show=str))


OutputMachine.TestCase.settings = settings(deadline=None, max_examples=200, stateful_step_count=50)
TestOutput = OutputMachine.TestCase
