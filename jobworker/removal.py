"""Removes a directory tree that an untrusted program may have filled, and may once have been hostile about.

Decides that no path is followed twice: everything is done relative to open directories, symbolic links are
removed and never entered, and neither deep nesting nor the number of entries costs memory or descriptors.
A directory found inside is moved up to the top of the tree, where it is emptied in turn.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOVED = ".removed-{}"


def remove_tree(path: Path) -> None:
    """Removes the directory and all in it; one that is not there is fine. OSError names what could not be removed."""
    try:
        parent = os.open(path.parent, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        with _opened(path.name, parent=parent) as top:
            _empty_top(top)
        os.rmdir(path.name, dir_fd=parent)
    except FileNotFoundError:
        return
    finally:
        os.close(parent)


def _empty_top(top: int) -> None:
    names = itertools.count()
    while True:
        _remove_files(top)
        directories = os.listdir(top)
        if not directories:
            return
        for directory in directories:
            with _opened(directory, parent=top) as fd:
                _remove_files(fd)
                _lift_directories(fd, top, names)
            os.rmdir(directory, dir_fd=top)


def _lift_directories(fd: int, top: int, names: Iterator[int]) -> None:
    """Moves what `fd` still has (directories) to the top, under names that are free there."""
    for name in os.listdir(fd):
        while True:
            try:
                os.rename(name, _MOVED.format(next(names)), src_dir_fd=fd, dst_dir_fd=top)
                break
            except PermissionError:
                # moving a directory rewrites its "..", so its owner must be able to write it
                with _opened(name, parent=fd):
                    os.rename(name, _MOVED.format(next(names)), src_dir_fd=fd, dst_dir_fd=top)
                break
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise


def _remove_files(fd: int) -> None:
    """Removes everything that is not a directory; a file system that hides an entry's kind answers EISDIR."""
    with os.scandir(fd) as entries:
        files = [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]
    for name in files:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=fd)


@contextlib.contextmanager
def _opened(name: str, *, parent: int) -> Iterator[int]:
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    except PermissionError:
        _permit_unreadable(name, parent)
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        _permit(fd)
        yield fd
    finally:
        os.close(fd)


def _permit(fd: int) -> None:
    """An owner that is not root needs the directory's write and search permission to empty it."""
    with contextlib.suppress(PermissionError):
        os.fchmod(fd, 0o700)


def _permit_unreadable(name: str, parent: int) -> None:
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{fd}", 0o700)
    finally:
        os.close(fd)
