"""Page tokens: where the last page ended, as text that callers hand back unread.

Pure. A token is not a secret and gives nothing that a search would not; it is checked because it comes back
from outside.
"""

from __future__ import annotations

import re

from jobworker.errors import InvalidArgument
from jobworker.jobids import is_canonical
from jobworker.store.jobrecords import Position

DEFAULT_SIZE = 100
LARGEST_SIZE = 1000
_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)
_LATEST = 2**63 - 1


def size(asked: int) -> int:
    """How many records a page has when so many were asked for; 0 means "as you like"."""
    return min(asked or DEFAULT_SIZE, LARGEST_SIZE)


def token(position: Position) -> str:
    """The token that asks for what follows."""
    return f"{position.created_unix_nano}.{position.job_id}"


def position(text: str) -> Position | None:
    """Where to go on; None for the empty token. InvalidArgument for what `token` never gave."""
    if not text:
        return None
    number, _, job_id = text.partition(".")
    if not _NUMBER.fullmatch(number) or int(number) > _LATEST or not is_canonical(job_id):
        raise InvalidArgument(
            "page_token is not one of this worker's",
            field="page_token",
            hint="give the next_page_token of the page before, or none",
        )
    return Position(int(number), job_id)
