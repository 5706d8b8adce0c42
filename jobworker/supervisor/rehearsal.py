"""Before an upgrade: whether the version that is installed now can take over from the one that runs.

Decides that by asking it, in a process of its own. After the exec there would be no way back: a version that cannot be
loaded, or does not know the files this one writes, must be refused while this one still runs.
"""

from __future__ import annotations

import os

from jobworker.supervisor import runstate
from jobworker.supervisor.loop import READ
from jobworker.supervisor.options import interpreter, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jobworker.supervisor.loop import Loop


class Rehearsal:
    """One asking; `done` is called with "" or the reason why not. OSError when there is no process to ask."""

    def __init__(self, loop: Loop, done: Callable[[str], None]) -> None:
        self._loop = loop
        self._done = done
        self._pid = spawn([*interpreter(), "--can-take-over", str(runstate.VERSION)])
        self._pidfd = os.pidfd_open(self._pid)
        loop.watch(self._pidfd, READ, self._on_exit)

    def _on_exit(self, _events: int) -> None:
        _, status = os.waitpid(self._pid, 0)
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        self._done(
            "" if status == 0 else "the installed version cannot take over from this one, which goes on"
        )
