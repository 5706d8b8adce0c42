"""Verbs that take several jobs: each is done, each error is told, the exit status is that of the first error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobctl.cli.failure import status_of, tell
from jobctl.errors import InvalidArgument, JobctlError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from jobctl.cli.session import Session
    from jobctl.job import Job


async def each(references: Sequence[str], session: Session, do: Callable[[Job, str], Awaitable[None]]) -> int:
    """Finds one job after the other and does it; raises InvalidArgument when none is named."""
    if not references:
        raise InvalidArgument("no job given", hint="an id, the beginning of one, or a name")
    status = 0
    async with session.client() as client:
        for reference in references:
            try:
                await do(await client.find(reference), reference)
            except JobctlError as error:
                tell(error, as_json=session.as_json)
                status = status or status_of(error)
    return status
