"""`python -m jobworker.supervisor.examine [CGROUP]`: what a supervisor started here would find, as one JSON object.

Makes a tree as a supervisor does, tries every limit in it, removes it and puts back what was switched on for it. A
process of its own, since it may have to change its cgroup. What the findings mean for people is not known here.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys

from jobworker.supervisor import abilities, cgroup_setup, cgroup_v1, cgroupfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobworker.supervisor.messages import Examination


def examine(root: str | None) -> Examination:
    """What there is; `root` is the cgroup to make the tree in, None to choose as a supervisor does."""
    mounts = cgroup_setup.find_mounts()
    mount = mounts.get("")
    base = root or cgroup_setup.choose_base(mount)
    before = _switched_on(base)
    tree = cgroup_setup.set_up(f"jobworker-examine-{os.getpid()}", root=root)
    try:
        here = None if tree is None else tree.describe()
        return {
            "mode": "none" if here is None else here["mode"],
            "base": base or "",
            "delegated": base is not None and cgroup_setup.is_delegated(base),
            "controllers": {} if here is None else here["controllers"],
            "into_cgroup": here is not None and here["into_cgroup"],
            "kills": tree is not None and _has_kill(tree.path),
            "offered": [] if base is None else _words(base, "cgroup.controllers"),
            "offered_at_top": [] if mount is None else _words(mount.top, "cgroup.controllers"),
            "mounted_v1": [ours for ours, theirs in cgroup_v1.NAMES.items() if theirs in mounts],
            "unenforced": abilities.missing(tree),
        }
    finally:
        if tree is not None:
            tree.remove()
        _switch_off(base, before)


def _words(directory: str, name: str) -> list[str]:
    with contextlib.suppress(OSError), open(os.path.join(directory, name), encoding="ascii") as file:
        return file.read().split()
    return []


def _switched_on(base: str | None) -> list[str]:
    return [] if base is None else _words(base, "cgroup.subtree_control")


def _switch_off(base: str | None, before: list[str]) -> None:
    for controller in _switched_on(base):
        if base is not None and controller not in before:
            with contextlib.suppress(OSError):  # somebody else has begun to use it
                base_fd = cgroupfs.open_directory(base)
                try:
                    cgroupfs.write(base_fd, "cgroup.subtree_control", "-" + controller)
                finally:
                    os.close(base_fd)


def _has_kill(path: str) -> bool:
    return os.path.exists(os.path.join(path, "cgroup.kill"))


if __name__ == "__main__":
    print(json.dumps(examine(sys.argv[1] if len(sys.argv) > 1 else None)))  # noqa: T201 - it is read by who started it
