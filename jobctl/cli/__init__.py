"""The command line. This file is what every command pays for, so it only decides where to go.

`jobctl run -- ARGV…` without options says all that is needed by itself and goes the short way, without a command line parser; it runs
the same loop as `jobctl run` with options. Everything else is cyclopts' (app.py).
"""

from __future__ import annotations

import gc
import io
import os
import sys
from typing import NoReturn

from jobwire.descriptors import keep_standard_descriptors

INTERRUPTED = 130  # 128 + SIGINT
SIGPIPE_STATUS = 141  # 128 + SIGPIPE: what a shell says of a program whose reader has left


def main() -> NoReturn:
    """Runs the command of sys.argv and ends the process with its exit status."""
    keep_standard_descriptors()
    _speak_utf8()
    gc.disable()  # importing makes no garbage, and looking for some takes a tenth of the time; run_to_end enables it
    try:
        leave(_run(sys.argv[1:]))
    except KeyboardInterrupt:
        leave(INTERRUPTED)
    except Exception:
        sys.excepthook(*sys.exc_info())
        leave(125)


def _run(arguments: list[str]) -> int:
    if argv := _plain_run(arguments):
        from jobctl.cli.runloop import run_plain  # noqa: PLC0415 - each way imports what it needs

        return run_plain(argv)
    if arguments == ["--version"]:
        from jobwire import __version__  # noqa: PLC0415

        print(f"jobctl {__version__}")  # noqa: T201 - data
        return 0
    from jobctl.cli.app import dispatch  # noqa: PLC0415

    return dispatch(arguments)


def _plain_run(arguments: list[str]) -> list[str]:
    """The program of `run -- ARGV…` or `run ARGV…`; empty for everything else."""
    if arguments[:1] != ["run"]:
        return []
    if arguments[1:2] == ["--"]:
        return arguments[2:]
    return [] if arguments[1:2] == [] or arguments[1].startswith("-") else arguments[1:]


def leave(status: int) -> NoReturn:
    """Ends the process at once: taking a Python apart that did its work takes longer than a call to the worker."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            status = SIGPIPE_STATUS
        except (OSError, ValueError):
            status = status or 125
    os._exit(status)


def _speak_utf8() -> None:
    """What we say is UTF-8 whatever the locale, as what jobs write passes unchanged and JSON is nothing else."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
