"""The worker's tree of cgroups, and the one leaf in it that each job gets.

Decides where the tree is, which controllers it has and on which version, and whether a child can be cloned
straight into a leaf. One directory on cgroup2 does entry, kill, signals and "is it empty" for all controllers;
those still on cgroup v1 have a twin directory each. A leaf is fresh for every start, since the kernel kills
whatever is cloned into a cgroup that was killed before. What the limits are for is not known here.
"""

from __future__ import annotations

import contextlib
import os
import select

from jobworker import syscalls
from jobworker.supervisor import cgroup_v1, cgroup_v2, cgroupfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from jobworker.supervisor.jobfacts import Usage
    from jobworker.supervisor.messages import Cgroups

OWN_LEAF = "supervisor"  # where it moves when it sits in the cgroup that the tree goes into
_SIGNAL_PASSES = 64  # over the list of processes, until no new one has appeared
_VERSIONS = {"v1": cgroup_v1, "v2": cgroup_v2}


class Leaf:
    """The cgroup of one job: its name in every hierarchy, and until the child is born the descriptors to enter by."""

    __slots__ = ("clone_fd", "join_fds", "name", "tree")
    counts_by_reaping = False
    holds_its_processes = True  # a kill reaches all of them, and the last one's end is told
    EVENTS = select.EPOLLPRI

    def __init__(self, tree: Tree, name: str) -> None:
        self.tree = tree
        self.name = name
        self.clone_fd: int | None = None
        self.join_fds: list[int] = []

    def create(self) -> None:
        """Makes the directories and opens the ways in; OSError leaves what was made, for `remove`."""
        tree = self.tree
        os.mkdir(self.name, 0o755, dir_fd=tree.fd)
        if tree.into_cgroup:
            self.clone_fd = cgroupfs.open_directory(self.name, tree.fd)
        else:
            self.join_fds.append(
                os.open(self.name + "/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=tree.fd)
            )
        for base_fd in tree.v1_fds.values():
            self.join_fds.append(cgroup_v1.create(base_fd, self.name))

    def adopt(self, pid: int, pidfd: int) -> None:
        """Nothing to remember: the kernel knows who is in."""

    def close_entry(self) -> None:
        """Closes the ways in, once the child is inside or was given up."""
        for fd in self.join_fds:
            os.close(fd)
        self.join_fds = []
        if self.clone_fd is not None:
            os.close(self.clone_fd)
            self.clone_fd = None

    def controller(self, name: str) -> tuple[int, ModuleType] | None:
        """Where this controller's leaves are and what knows its files; None when the worker has no such controller."""
        if name not in self.tree.controllers:
            return None
        base_fd, version = self.tree.controller(name)
        return base_fd, _VERSIONS[version]

    def why_not(self, controller: str) -> str:
        """Why no limit of this controller can be set."""
        return f"this host has no {controller} controller the worker may use"

    def processes(self) -> list[int]:
        """The pids in the leaf, those in cgroups that the job made below it included."""
        try:
            fd = cgroupfs.open_directory(self.name, self.tree.fd)
        except FileNotFoundError:
            return []
        try:
            return _processes(fd)
        finally:
            os.close(fd)

    def signal(self, number: int) -> None:
        """Sends a signal to every process, those forked meanwhile included."""
        if number == syscalls.SIGKILL:
            self.kill()
            return
        done: set[int] = set()
        for _ in range(_SIGNAL_PASSES):
            fresh = [pid for pid in self.processes() if pid not in done]
            if not fresh:
                return
            for pid in fresh:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            done.update(fresh)

    def kill(self) -> None:
        """Kills every process at once; nothing can fork out of it, and frozen processes die too."""
        with contextlib.suppress(FileNotFoundError):  # an empty cgroup, and somebody has removed it
            cgroupfs.write(self.tree.fd, self.name + "/cgroup.kill", "1")

    def open_events(self) -> int:
        """The file that says whether processes are left: read it, then await EVENTS and read again."""
        return os.open(self.name + "/cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.tree.fd)

    def is_populated(self, events_fd: int) -> bool:
        """Whether processes are left, zombies not counted, by a descriptor of `open_events`."""
        return is_populated(events_fd)

    def freeze(self, *, frozen: bool) -> None:
        """Stops every process where it is, or lets all go on; those that are stopped can be killed."""
        cgroup_v2.freeze(self.tree.fd, self.name, frozen=frozen)

    def usage(self, _rusage: object, *, ended: bool) -> Usage:
        """What the job has taken; for one that has ended, only what outlives its processes."""
        tree = self.tree
        usage = no_usage()
        cgroup_v2.add_cpu(tree.fd, self.name, usage)
        cgroup_v2.add_pressure(tree.fd, self.name, usage)
        for controller, version in tree.controllers.items():
            base_fd = tree.controller(controller)[0]
            _VERSIONS[version].add_usage(controller, base_fd, self.name, usage, ended=ended)
        return usage

    def remove(self) -> None:
        """Removes the directories in every hierarchy; OSError while a process is left."""
        self.close_entry()
        cgroupfs.remove_tree(self.tree.fd, self.name)
        for base_fd in self.tree.v1_fds.values():
            cgroupfs.remove_tree(base_fd, self.name)


class Tree:
    """The directory of all leaves on cgroup2, and its twins on v1; `controllers` maps each to "v2" or "v1"."""

    __slots__ = ("controllers", "fd", "into_cgroup", "left", "path", "v1_fds", "v1_paths")

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = cgroupfs.make_directory(path)
        self.controllers: dict[str, str] = {}
        self.v1_fds: dict[str, int] = {}
        self.v1_paths: list[str] = []
        self.into_cgroup = False
        self.left = ""  # the cgroup that we moved out of, so that it can have controllers; "" when we did not

    def controller(self, name: str) -> tuple[int, str]:
        """The directory that holds this controller's leaves, and its version."""
        version = self.controllers[name]
        return (self.fd if version == "v2" else self.v1_fds[name]), version

    def add_v1(self, name: str, path: str) -> None:
        """Joins a v1 controller's hierarchy at `path`, which is made."""
        self.v1_fds[name] = cgroupfs.make_directory(path)
        self.v1_paths.append(path)
        self.controllers[name] = "v1"

    def new_leaf(self, name: str) -> Leaf:
        """A leaf that is not made yet."""
        return Leaf(self, name)

    def leaves(self) -> list[str]:
        """The names of all leaves that are there, in any hierarchy."""
        names = set(cgroupfs.subdirectories(self.fd))
        for base_fd in self.v1_fds.values():
            names.update(cgroupfs.subdirectories(base_fd))
        return sorted(names)

    def numbers(self) -> list[int]:
        """Those that are numbers of children."""
        return [int(name) for name in self.leaves() if name.isdigit()]

    def describe(self) -> Cgroups:
        """What the welcome message tells."""
        return {
            "mode": "hybrid" if self.v1_fds else "v2",
            "root": self.path,
            "controllers": dict(self.controllers),
            "into_cgroup": self.into_cgroup,
            "unenforced": [],
        }

    def remove(self) -> None:
        """Removes the tree itself, at the supervisor's end, and goes back to where it was; what is not empty stays."""
        for path in [self.path, *self.v1_paths]:
            with contextlib.suppress(OSError):
                os.rmdir(path)
        if self.left:
            with contextlib.suppress(OSError):  # somebody else may have begun to use it
                self._return()

    def _return(self) -> None:
        base_fd = cgroupfs.open_directory(self.left)
        for controller in self.controllers:
            cgroupfs.write(base_fd, "cgroup.subtree_control", "-" + controller)
        for pid in cgroupfs.read(base_fd, OWN_LEAF + "/cgroup.procs").split():  # ours, and the keeper's
            cgroupfs.write(base_fd, "cgroup.procs", pid)
        os.rmdir(OWN_LEAF, dir_fd=base_fd)


def is_populated(events_fd: int) -> bool:
    """Whether processes are left, zombies not counted, by a descriptor of `open_events`."""
    return b"populated 1" in os.pread(events_fd, 256, 0)


def no_usage() -> Usage:
    """Usage of which nothing is known yet."""
    return {
        "cpu_user_usec": 0,
        "cpu_system_usec": 0,
        "memory_bytes": None,
        "memory_peak_bytes": None,
        "pids": None,
        "pids_peak": None,
        "io_read_bytes": None,
        "io_write_bytes": None,
        "io_read_operations": None,
        "io_write_operations": None,
        "cpu_throttled_usec": None,
        "oom_kills": None,
        "cpu_pressure": None,
        "memory_pressure": None,
        "io_pressure": None,
        "wall_usec": None,
    }


def _processes(dir_fd: int) -> list[int]:
    pids = []
    with contextlib.suppress(OSError):  # a threaded cgroup has no such list, a removed one no files
        fd = os.open("cgroup.procs", os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
        with open(fd, "rb") as file:
            pids = [int(line) for line in file.read().split()]
    for child in cgroupfs.subdirectories(dir_fd):
        with contextlib.suppress(OSError):
            child_fd = cgroupfs.open_directory(child, dir_fd)
            try:
                pids += _processes(child_fd)
            finally:
                os.close(child_fd)
    return pids
