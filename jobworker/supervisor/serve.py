"""Wires the supervisor's parts together and runs them until it is told to end.

Decides nothing but the order. It and all it imports are loaded after the nurse was cloned: see `__main__`.
"""

from __future__ import annotations

import gc
import os
import time

from jobworker import syscalls
from jobworker.supervisor.control import Listener
from jobworker.supervisor.engine import Engine
from jobworker.supervisor.journal import note
from jobworker.supervisor.launch import Launcher
from jobworker.supervisor.loop import READ, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jobworker.supervisor.nursery import Nursery


def run(
    nursery: Nursery, *, state_fd: int, jobs_fd: int, is_managed: bool, when_ready: Callable[[], None]
) -> None:
    """Serves the state directory; calls back once the socket listens. `is_managed`: it ends when its manager says so."""
    loop = Loop()
    boot_id = _read_boot_id()
    engine = Engine(loop, jobs_fd=jobs_fd, boot_id=boot_id, started_ns=time.time_ns())
    engine.is_managed = is_managed
    engine.launcher = Launcher(engine, nursery, boot_id=boot_id)
    _watch_signals(loop, engine)
    listener = Listener(loop, state_fd=state_fd, admit=engine.admit)
    tree = nursery.tree
    note(f"ready, cgroups {tree.path if tree else 'none'}")
    nursery.attend(loop)
    nursery.refill()
    gc.collect()
    gc.freeze()  # collection is off, and when it is done by hand it need not look at what stays for ever
    when_ready()
    loop.run()
    listener.close()


def _watch_signals(loop: Loop, engine: Engine) -> None:
    fd = syscalls.signalfd([syscalls.SIGTERM, syscalls.SIGHUP, syscalls.SIGINT])

    def on_signal(_events: int) -> None:
        if os.read(fd, 128)[0] == syscalls.SIGTERM:  # others are ignored
            engine.shut_down()

    loop.watch(fd, READ, on_signal)


def _read_boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
