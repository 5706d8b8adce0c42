"""The main process of a job: its signals, and how its end is learned, whoever is its parent.

Decides whom to ask. It is our own child, as a rule; one that an earlier supervisor made is the keeper's, which tells; and
where that was killed too, the kernel may tell, once whoever adopts orphans on this host has reaped it. Our own is
reaped as late as possible: until then a supervisor that takes over can still learn how it ended. What the end
means for the job is `job`'s business. Sources: waitid(2), PIDFD_GET_INFO in include/uapi/linux/pidfd.h.
"""

from __future__ import annotations

import contextlib
import os
import signal

from jobworker import syscalls
from jobworker.supervisor.loop import EDGE, READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from resource import struct_rusage

    from jobworker.supervisor.custody import Custody, Exit
    from jobworker.supervisor.loop import Loop

    WhenEnded = Callable[[int | None], None]


class MainProcess:
    """Owns the pidfd, which is -1 when the process is gone without a trace; `rusage` is known once somebody has reaped it."""

    __slots__ = (
        "_custody",
        "_loop",
        "_reaps",
        "_when_ended",
        "_when_withheld",
        "is_gone",
        "pid",
        "pidfd",
        "rusage",
    )

    def __init__(
        self,
        loop: Loop,
        custody: Custody,
        pid: int,
        *,
        pidfd: int,
        reaps: bool,
        when_ended: WhenEnded,
        when_withheld: Callable[[], None],
    ) -> None:
        """`when_ended` is called once with the wait status, None when nobody knows it. `reaps`: at once, for the rusage.

        `when_withheld`: it has ended, and a process that traces it (ptrace(2)) has to take notice first, or to end.
        """
        self._loop = loop
        self._custody = custody
        self._reaps = reaps
        self._when_ended = when_ended
        self._when_withheld = when_withheld
        self.pid = pid
        self.pidfd = pidfd
        self.is_gone = False
        self.rusage: struct_rusage | Exit | None = None

    def attend(self) -> None:
        """From now on its end is awaited."""
        if self.pidfd < 0:
            self._loop.defer(lambda: self._end(None))
        else:
            self._loop.watch(self.pidfd, READ | EDGE, self._on_exit)

    def has_ended(self) -> bool:
        """Asks the kernel, since the event may be on its way."""
        return self.is_gone or self.pidfd < 0 or syscalls.is_readable(self.pidfd)

    def signal(self, number: int) -> None:
        """Sends a signal; ProcessLookupError when it is gone."""
        if self.is_gone or self.pidfd < 0:
            raise ProcessLookupError
        signal.pidfd_send_signal(self.pidfd, number)

    def give_up(self) -> None:
        """It does not end: from now on it counts as gone."""
        self.is_gone = True
        self._loop.unwatch(self.pidfd)

    def release(self) -> None:
        """Reaps it, if it is ours and nobody has, and closes its descriptor."""
        if self.pidfd < 0:
            return
        self._loop.unwatch(self.pidfd)
        with contextlib.suppress(OSError):  # not ours, or long gone
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        os.close(self.pidfd)
        self.pidfd = -1

    def _on_exit(self, _events: int) -> None:
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            self._ask_keeper()
            return
        if result is None:
            self._when_withheld()
            return
        if self._reaps:
            _, status, self.rusage = os.wait4(self.pid, 0)
        else:
            status = _wait_status(result)
        self._end(status)

    def _ask_keeper(self) -> None:
        self._loop.unwatch(self.pidfd)
        if not self._custody.expect(self.pid, self._on_keeper_knows):
            self._ask_kernel()

    def _on_keeper_knows(self, ended: Exit | None) -> None:
        if self.is_gone:
            return
        if ended is None:
            self._ask_kernel()
        else:
            self.rusage = ended
            self._end(ended.status)

    def _ask_kernel(self) -> None:
        """Its status is there once its parent has taken it, if this kernel tells it to others at all."""
        try:
            status = syscalls.pidfd_exit_status(self.pidfd)
        except OSError:
            self._end(None)
            return
        if status is None:
            self._loop.watch(self.pidfd, 0, self._on_reaped)  # a hang-up is always reported
        else:
            self._end(status)

    def _on_reaped(self, _events: int) -> None:
        self._loop.unwatch(self.pidfd)
        self._ask_kernel()

    def _end(self, status: int | None) -> None:
        self.is_gone = True
        if self.pidfd >= 0:
            self._loop.unwatch(self.pidfd)
        self._when_ended(status)


def _wait_status(result: os.waitid_result) -> int:
    """What wait(2) would have told; nobody has waited yet."""
    if result.si_code == os.CLD_EXITED:
        return result.si_status << 8
    return result.si_status | (0x80 if result.si_code == os.CLD_DUMPED else 0)
