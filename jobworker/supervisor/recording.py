"""output.log and output.idx of one job, as their only writer has them open; docs/on-disk.md is the reference.

Decides in which order things are written, so that a kill between any two system calls leaves files of which no byte
is in doubt: the stream before its data, the record after it, the count before what is dropped, the head before the
hole. Bytes only ever move by splice: what is not in a file is still in the pipe. How much is stored is `cap`'s
business, when something is moved `capture`'s.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time

from jobworker import syscalls
from jobworker.outputindex import (
    DROPPED_OFFSET,
    HEAD_OFFSET,
    HEADER_SIZE,
    PENDING_OFFSET,
    RECORD_SIZE,
    IndexFile,
    count_records,
    find_offset,
    pack_record,
    read_header,
    read_records,
    repair,
)
from jobworker.supervisor.journal import note

# bytes; no file system has larger blocks. One that is punched by halves stays: holes begin with it
_BLOCK = 65536


class Recording:
    """The stored output is `head` to `size` in output.log; `dropped` more bytes were taken and not stored."""

    __slots__ = (
        "_index_fd",
        "_indexed",
        "_log_fd",
        "_null_fd",
        "_pending",
        "_punched",
        "_punched_records",
        "_records",
        "_refuses_holes",
        "_time_ns",
        "dropped",
        "head",
        "size",
    )

    def __init__(self, *, log: int, index: int, null: int) -> None:
        """Takes over the open files, mends what a crash left, and goes on where they end; `null` is /dev/null."""
        self._log_fd = log
        self._index_fd = index
        self._null_fd = null
        # a full disk refuses the record of what has none: it is written as soon as there is space
        with contextlib.suppress(OSError):
            repair(index, log)
        header = read_header(index)
        view = IndexFile(index)
        last = read_records(view, max(0, count_records(view) - 1), limit=1)
        self.head = header.head
        self.dropped = header.dropped
        # a power failure may have kept the head and not the log: no offset is given twice
        self.size = max(os.fstat(log).st_size, header.head)
        self._pending = header.pending
        self._records = count_records(view)
        self._indexed = last[0].end if last else 0
        self._time_ns = last[0].time_ns if last else 0
        self._punched = self._punched_records = 0  # up to where holes are; done again after a crash
        self._refuses_holes = False

    def store(self, pipe: int, stream: int, *, limit: int) -> int:
        """Moves up to `limit` bytes into the log; how many, 0 at the end. BlockingIOError when the pipe is empty.

        The record is to follow before anything else is stored.
        """
        if stream != self._pending:
            os.pwrite(self._index_fd, bytes((stream,)), PENDING_OFFSET)
            self._pending = stream
        count = os.splice(pipe, self._log_fd, limit, offset_dst=self.size, flags=os.SPLICE_F_NONBLOCK)
        self.size += count
        return count

    def drop(self, pipe: int, *, limit: int) -> int:
        """Takes up to `limit` bytes and counts them; how many. BlockingIOError when the pipe is empty.

        They are counted first: a crash in between makes the gap too long, never silent.
        """
        count = left = min(limit, syscalls.count_readable(pipe))
        if not count:
            raise BlockingIOError
        self._write_header(DROPPED_OFFSET, self.dropped + count)
        self.dropped += count
        while left:
            taken = os.splice(pipe, self._null_fd, left, flags=os.SPLICE_F_NONBLOCK)
            if not taken:  # the job has opened its pipe too, and read what was counted
                break
            left -= taken
        return count

    def record(self) -> None:
        """Writes the record of what is stored and has none, if there is any; to be called again when it fails."""
        if self._indexed == self.size:
            return
        self._time_ns = max(self._time_ns, time.time_ns())  # records never go back in time, clocks may
        record = pack_record(self.size, stream=self._pending, time_ns=self._time_ns)
        if os.pwrite(self._index_fd, record, _position(self._records)) != RECORD_SIZE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._records += 1
        self._indexed = self.size

    def release(self, head: int) -> None:
        """Gives the output before `head` back to the file system, and its records but the last."""
        self._write_header(HEAD_OFFSET, head)
        self.head = head
        first = find_offset(IndexFile(self._index_fd), head) - 1  # its end is where the one after it begins
        try:
            self._make_holes(head, first)
        except OSError as error:
            if not self._refuses_holes:
                self._refuses_holes = True
                note(f"output that is dropped cannot be given back to the disk: {error.strerror}")

    def close(self) -> None:
        """Closes both files."""
        if self._log_fd >= 0:
            os.close(self._log_fd)
            os.close(self._index_fd)
        self._log_fd = self._index_fd = -1

    def _make_holes(self, head: int, first: int) -> None:
        start = _block_of(self._punched)
        syscalls.punch_hole(self._log_fd, start, head - start)
        self._punched = head
        if first > self._punched_records:
            start = max(HEADER_SIZE, _block_of(_position(self._punched_records)))
            syscalls.punch_hole(self._index_fd, start, _position(first) - start)
            self._punched_records = first

    def _write_header(self, position: int, value: int) -> None:
        os.pwrite(self._index_fd, value.to_bytes(8, "little"), position)


def _position(number: int) -> int:
    return HEADER_SIZE + number * RECORD_SIZE


def _block_of(position: int) -> int:
    return position // _BLOCK * _BLOCK
