"""Standard input, output and error, there whatever the caller closed. Both command lines begin with it."""

import os
import sys


def keep_standard_descriptors() -> None:
    """Opens what the caller closed (`>&-`) on /dev/null: a socket must never get number 1 and what is printed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
