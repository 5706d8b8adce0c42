"""How much of a job's output is stored, and which part of it when there is more.

Decides from numbers alone how many further bytes may be stored, and where the stored output is to begin. Pure; how
bytes get to the file and out of it again is `recording`'s business.
"""

from __future__ import annotations

NEWEST = "newest"  # the head is given back: stored bytes are the last ones
OLDEST = "oldest"  # the rest is taken and counted: stored bytes are the first ones
ALL = "all"  # the job waits in its write: nothing is given up
KEEPS = (NEWEST, OLDEST, ALL)

_BLOCK = 4096  # what file systems give back as a whole
_LARGEST_STEP = 4 * 1024 * 1024  # bytes given back at a time: a hole of a gigabyte takes a third of a second
_ENDLESS = 2**63 - 1


class Cap:
    """At most `max_bytes` of a job's output are stored, no limit when None; `keep` says which."""

    __slots__ = ("keep", "max_bytes")

    def __init__(self, max_bytes: int | None, keep: str) -> None:
        self.max_bytes = max_bytes
        self.keep = keep

    def room(self, stored: int) -> int:
        """How many bytes may be stored beyond the `stored` ones."""
        if self.max_bytes is None or self.keep == NEWEST:
            return _ENDLESS
        return max(0, self.max_bytes - stored)

    def head(self, head: int, size: int) -> int:
        """Where the output stored from `head` to `size` is to begin: at `head` as long as it is not too much.

        What is then given back is an eighth of the cap, or _LARGEST_STEP, more than need be: holes are not free.
        """
        limit = self.max_bytes
        if limit is None or self.keep != NEWEST or size - head <= limit:
            return head
        step = min(limit // 8, _LARGEST_STEP)
        block = _BLOCK if step >= _BLOCK else 1
        return (size - limit + step) // block * block


NO_CAP = Cap(None, NEWEST)
