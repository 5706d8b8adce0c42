"""Wires the supervisor's parts together and runs them until it is told to end, or to make way for its successor.

Decides nothing but the order: what an earlier supervisor left is taken over before anybody is served. It and all it
imports are loaded after the nurse was cloned: see `startup`.
"""

from __future__ import annotations

import gc
import os
import socket
import time

from jobworker import syscalls
from jobworker.supervisor import cgroup_setup, exitrecord, takeover
from jobworker.supervisor.control import Listener, listen
from jobworker.supervisor.engine import Engine
from jobworker.supervisor.journal import note
from jobworker.supervisor.keeper import LISTENER
from jobworker.supervisor.launch import Launcher
from jobworker.supervisor.loop import READ, Loop
from jobworker.supervisor.succession import END, Succession

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jobworker.supervisor.nursery import Nursery


def run(
    nursery: Nursery, *, state_fd: int, jobs_fd: int, is_managed: bool, when_ready: Callable[[], None]
) -> Succession:
    """Serves the state directory; calls back once it does. What becomes of us in the end.

    `is_managed`: it ends when its service manager says so.
    """
    loop = Loop()
    boot_id = exitrecord.read_boot_id()
    custody = nursery.custody
    engine = Engine(loop, jobs_fd=jobs_fd, boot_id=boot_id, started_ns=time.time_ns(), custody=custody)
    engine.is_managed = is_managed
    engine.launcher = Launcher(engine, nursery, boot_id=boot_id)
    _take_over(engine, nursery, jobs_fd=jobs_fd, boot_id=boot_id)
    _watch_signals(loop, engine)
    kept = custody.claim(LISTENER)
    sock = socket.socket(fileno=kept.fds[0]) if kept else listen(state_fd)
    custody.drop_rest()
    custody.attend(loop, when_lost=engine.succession.upgrade)
    listener = Listener(loop, sock, state_fd=state_fd, admit=engine.admit)
    tree = nursery.tree
    note(f"ready, cgroups {tree.path if tree else 'none'}, {engine.count()} jobs taken over")
    nursery.attend(loop)
    nursery.refill()
    gc.collect()
    gc.freeze()  # collection is off, and when it is done by hand it need not look at what stays for ever
    custody.ready(sock.fileno())
    when_ready()
    loop.run()
    if engine.succession.future == END:
        listener.close()
    else:
        engine.succession.listener_fd = sock.detach()
    return engine.succession


def _take_over(engine: Engine, nursery: Nursery, *, jobs_fd: int, boot_id: str) -> None:
    states = takeover.find(jobs_fd=jobs_fd, boot_id=boot_id)
    adopter = takeover.TakeOver(engine, nursery.tree, nursery.custody, engine.on_launched)
    adopted = set()
    for state in states:
        try:
            job = adopter.adopt(state)
        except (KeyError, TypeError, ValueError) as error:  # JSON, but not what we have written
            note(f"job {state['record']['job']}: its state cannot be used, it is given up: {error!r}")
            continue
        if job is None:
            nursery.custody.drop(state["number"])
        else:
            engine.add(job)
            adopted.add(str(state["number"]))
    if nursery.tree is not None:
        cgroup_setup.clear_leftovers(nursery.tree, but=adopted)


def _watch_signals(loop: Loop, engine: Engine) -> None:
    fd = syscalls.signalfd([syscalls.SIGTERM, syscalls.SIGHUP, syscalls.SIGINT])

    def on_signal(_events: int) -> None:
        number = os.read(fd, 128)[0]
        if number == syscalls.SIGTERM:
            engine.shut_down()
        elif number == syscalls.SIGHUP:
            engine.succession.upgrade()

    loop.watch(fd, READ, on_signal)
