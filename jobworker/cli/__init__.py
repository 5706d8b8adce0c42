"""`jobworker`: the worker's command line. This file is what every command pays for, so it loads nothing.

Each command is a file of its own here, imported when it is called; app.py names them.
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command of sys.argv and ends the process with its exit status."""
    words = sys.argv[1:]
    if words == ["--version"]:
        from jobwire import __version__  # noqa: PLC0415 - each way imports what it needs

        sys.stdout.write(f"jobworker {__version__}\n")
        sys.exit(0)
    from jobworker.cli.app import dispatch  # noqa: PLC0415

    sys.exit(dispatch(words))
