"""`jobworker`: the worker's command line. This file is what every command pays for, so it loads nothing.

Each command is a file of its own here, imported when it is called; app.py names them.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

from jobwire.descriptors import keep_standard_descriptors

FAILED = 125
SIGPIPE_STATUS = 141  # 128 + SIGPIPE: what a shell says of a program whose reader has left
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main() -> NoReturn:
    """Runs the command of sys.argv and ends the process with its exit status."""
    keep_standard_descriptors()
    try:
        status = _run(sys.argv[1:])
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.EPIPE, *UNWRITABLE):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left of it has no other place to go
        status = SIGPIPE_STATUS
        if error.errno != errno.EPIPE:
            sys.stderr.write(f"error: cannot write the output: {os.strerror(error.errno).lower()}\n")
            status = FAILED
    sys.exit(status)


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        from jobwire import __version__  # noqa: PLC0415 - each way imports what it needs

        sys.stdout.write(f"jobworker {__version__}\n")
        return 0
    from jobworker.cli.app import dispatch  # noqa: PLC0415

    return dispatch(words)
