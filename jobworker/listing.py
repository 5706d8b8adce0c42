"""What a caller sees of all jobs when it lists them: those of its own, or all, as its filter says; page by page.

Decides who may look at whose, and what a page and the way to the next one are. How jobs are searched for is the
store's; a record is handed on as it is stored, unread.
"""

from __future__ import annotations

from generated.jobworker.v1 import JobFilter
from jobworker import pages
from jobworker.policy import Caller, may_see_all
from jobworker.store import JobStore
from jobworker.store.jobrecords import Search

Page = tuple[list[bytes], str]


def page(store: JobStore, caller: Caller, selection: JobFilter | None, *, size: int, token: str) -> Page:
    """Encoded JobRecords, newest first, and the next page's token; `size` and `token` as they were asked for."""
    after = pages.position(token)
    search = _search(caller, selection)
    if search is None:
        return [], ""
    rows, more = store.page(search, after=after, limit=pages.size(size))
    return [row.record for row in rows], pages.token(rows[-1].position) if more else ""


def _search(caller: Caller, selection: JobFilter | None) -> Search | None:
    """What the caller looks for among what it may see; None when that is nothing."""
    if selection is None:
        selection = JobFilter()
    owner = selection.owner
    if not may_see_all(caller):
        if owner not in ("", caller.client_id):
            return None
        owner = caller.client_id
    return Search(
        owner=owner,
        name=selection.name,
        id_prefix=selection.id_prefix,
        states=frozenset(int(state) for state in selection.states),
        labels=dict(selection.labels),
    )
