"""Where the worker's cgroup tree goes on this host, and what the supervisor does before the first job.

Decides the base directory (the cgroup2 mount's top for root, else the supervisor's own cgroup), turns on the
controllers that are there on cgroup2 and joins those of v1, clears what a killed supervisor left behind, and
tries whether a child can be cloned straight into a leaf. Runs once; knows nothing of single jobs.
"""

from __future__ import annotations

import contextlib
import os
import select
import time

from jobworker import syscalls
from jobworker.supervisor import cgroup_v1, cgroupfs
from jobworker.supervisor.cgroup import OWN_LEAF, Leaf, Tree, is_populated
from jobworker.supervisor.journal import note

_TEST_LEAF = ".self-test"  # no job's name begins with a dot
_LEFTOVER_DEADLINE_NS = 5_000_000_000


def set_up(name: str, *, root: str | None) -> Tree | None:
    """The tree `name` below `root` (default: chosen for this host), ready for leaves; None where there can be none."""
    mounts = find_mounts()
    base = root or choose_base(mounts.get(""))
    if base is None:
        note("no cgroup2 mount: jobs run without cgroups, limits are refused")
        return None
    try:
        tree = _make_tree(base, name)
    except OSError as error:
        note(f"no cgroup under {base}: {error.strerror}; jobs run without cgroups, limits are refused")
        return None
    _join_v1(tree, mounts, name)
    _clear(tree, [leaf for leaf in tree.leaves() if not leaf.isdigit()])
    try_clone(tree)
    return tree


def find_mounts() -> dict[str, cgroupfs.Mount]:
    """The hierarchies of this host, see `cgroupfs.find_mounts`."""
    with open("/proc/self/mountinfo") as mountinfo, open("/proc/self/cgroup") as own:
        return cgroupfs.find_mounts(mountinfo.read(), own.read())


def try_clone(tree: Tree) -> None:
    """Finds out whether children survive CLONE_INTO_CGROUP here; they do not when our own cgroup was ever killed."""
    leaf = tree.new_leaf(_TEST_LEAF)
    try:
        tree.into_cgroup = True
        leaf.create()
        tree.into_cgroup = _survives_clone(leaf)
    except OSError as error:
        tree.into_cgroup = False
        note(f"cannot clone into a cgroup: {error.strerror}")
    finally:
        leaf.remove()
    if not tree.into_cgroup:
        note("children enter their cgroup by themselves, which is slower")


def _survives_clone(leaf: Leaf) -> bool:
    pid, pidfd = syscalls.clone3(cgroup_fd=leaf.clone_fd)
    if pid == 0:
        os._exit(0)
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
    return result is not None and result.si_code == os.CLD_EXITED


def choose_base(mount: cgroupfs.Mount | None) -> str | None:
    """The directory that the tree goes into: the top for root, unless a part of it was delegated to us."""
    if mount is None:
        return None
    own = mount.own
    if os.path.basename(own) == OWN_LEAF:  # where an earlier supervisor has moved itself and the keeper
        own = os.path.dirname(own)
    return mount.top if os.geteuid() == 0 and not is_delegated(own) else own


def is_delegated(path: str) -> bool:
    """Whether systemd gave us this cgroup (Delegate=yes), told by an extended attribute (systemd.resource-control(5))."""
    for attribute in ("trusted.delegate", "user.delegate"):
        with contextlib.suppress(OSError):
            return os.getxattr(path, attribute) == b"1"
    return False


def _make_tree(base: str, name: str) -> Tree:
    tree = Tree(os.path.join(base, name))
    base_fd = cgroupfs.open_directory(base)
    try:
        available = cgroupfs.read(base_fd, "cgroup.controllers").split()
        wanted = [controller for controller in cgroup_v1.NAMES if controller in available]
        if wanted and _leave_base(base, base_fd):
            tree.left = base
        for controller in wanted:
            if _turn_on(base_fd, controller) and _turn_on(tree.fd, controller):
                tree.controllers[controller] = "v2"
    finally:
        os.close(base_fd)
    return tree


def _leave_base(base: str, base_fd: int) -> bool:
    """Moves supervisor and keeper into a leaf when they sit in the base itself: controllers go to cgroups without processes.

    Whether they are there now, which an earlier supervisor may have seen to.
    """
    if not os.path.exists(os.path.join(base, "cgroup.type")):
        return False  # the top, which has no such file, is exempt from the rule
    ours = {str(os.getpid()), str(os.getppid())}
    with contextlib.suppress(OSError):
        for pid in ours.intersection(cgroupfs.read(base_fd, "cgroup.procs").split()):
            os.close(cgroupfs.make_directory(os.path.join(base, OWN_LEAF)))
            cgroupfs.write(base_fd, OWN_LEAF + "/cgroup.procs", pid)
        return str(os.getpid()) in cgroupfs.read(base_fd, OWN_LEAF + "/cgroup.procs").split()
    return False


def _turn_on(dir_fd: int, controller: str) -> bool:
    try:
        cgroupfs.write(dir_fd, "cgroup.subtree_control", "+" + controller)
    except OSError as error:
        note(f"controller {controller} cannot be turned on: {error.strerror}")
        return False
    return True


def _join_v1(tree: Tree, mounts: dict[str, cgroupfs.Mount], name: str) -> None:
    for controller, v1_name in cgroup_v1.NAMES.items():
        mount = mounts.get(v1_name)
        if mount is None or controller in tree.controllers:
            continue
        try:
            tree.add_v1(controller, os.path.join(mount.own, name))
        except OSError as error:
            note(f"controller {controller} (v1) cannot be used: {error.strerror}")


def clear_leftovers(tree: Tree, *, but: set[str]) -> None:
    """Kills and removes leaves of which nobody knows the job: nobody else would ever end those."""
    names = [name for name in tree.leaves() if name not in but]
    _clear(tree, names)
    if names:
        note(f"cleared {len(names)} cgroups of an earlier supervisor")


def _clear(tree: Tree, names: list[str]) -> None:
    for name in names:
        try:
            _clear_leaf(tree.new_leaf(name))
        except OSError as error:
            note(f"leftover cgroup {name} stays: {error.strerror}")


def _clear_leaf(leaf: Leaf) -> None:
    with contextlib.suppress(FileNotFoundError):  # left in a v1 hierarchy only
        events_fd = leaf.open_events()
        try:
            _kill_and_wait(leaf, events_fd)
        finally:
            os.close(events_fd)
    leaf.remove()


def _kill_and_wait(leaf: Leaf, events_fd: int) -> None:
    deadline_ns = time.monotonic_ns() + _LEFTOVER_DEADLINE_NS
    poll = select.poll()
    poll.register(events_fd, select.POLLPRI)
    leaf.kill()
    while is_populated(events_fd):
        left_ms = (deadline_ns - time.monotonic_ns()) // 1_000_000
        if left_ms <= 0 or not poll.poll(left_ms):
            return
