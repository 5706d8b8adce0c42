"""What the supervisor says about itself: one line per note on standard error, which is its log file.

Decides the form of a line only. A log that cannot be written must never hold up a job, so errors are dropped.
"""

from __future__ import annotations

import os
import sys
import time

_STDERR = 2


def note(text: str) -> None:
    """Writes one line with the time (UTC)."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        os.write(_STDERR, f"{stamp} supervisor[{os.getpid()}]: {text}\n".encode("utf-8", "replace"))
    except OSError:
        return


def note_exception() -> None:
    """Writes the exception being handled and where each of its frames was, on one line."""
    kind, error, trace = sys.exc_info()
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{os.path.basename(code.co_filename)}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    note(f"{kind.__name__ if kind else 'error'}: {error} ({' < '.join(reversed(places))})")
