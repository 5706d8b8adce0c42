"""Reading and writing the small files of a cgroup directory, and where the hierarchies are mounted.

Decides nothing about jobs or limits. Paths are relative to the descriptor of a directory, so that no call
walks down from the root. Sources: Documentation/admin-guide/cgroup-v2.rst, cgroups(7), proc(5).
"""

from __future__ import annotations

import contextlib
import os

_READ_SIZE = 16 * 1024  # more than any file read here; the kernel hands it over in one read


class Mount:
    """A mounted hierarchy: the directory where this process's own cgroup is or would be, and the mount's top."""

    __slots__ = ("own", "top")

    def __init__(self, top: str, own: str) -> None:
        self.top = top
        self.own = own


def read(dir_fd: int, path: str) -> str:
    """The content of a file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        return os.read(fd, _READ_SIZE).decode("ascii", "replace")
    finally:
        os.close(fd)


def read_int(dir_fd: int, path: str) -> int | None:
    """A file of one number; None when this kernel has no such file, or it says "max"."""
    try:
        return int(read(dir_fd, path))
    except (FileNotFoundError, ValueError):
        return None


def read_keyed(dir_fd: int, path: str) -> dict[str, int]:
    """A file of lines `key number`; empty when this kernel has no such file."""
    try:
        lines = read(dir_fd, path).splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def write(dir_fd: int, path: str, text: str) -> None:
    """Writes `text` in one write, which is how these files want it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)


def exists(dir_fd: int, path: str) -> bool:
    """Whether this kernel has such a file."""
    return os.access(path, os.F_OK, dir_fd=dir_fd)


def open_directory(path: str, dir_fd: int | None = None) -> int:
    """A descriptor for use as `dir_fd`."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)


def make_directory(path: str) -> int:
    """Makes the directory unless it is there, and opens it."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)
    return open_directory(path)


def subdirectories(dir_fd: int) -> list[str]:
    """The child cgroups of an open directory; costs one fstat when there are none."""
    if os.fstat(dir_fd).st_nlink <= 2:
        return []
    with os.scandir(dir_fd) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def remove_tree(dir_fd: int, name: str) -> None:
    """Removes a cgroup, and first those that its processes may have made inside it; OSError while one is in use."""
    try:
        os.rmdir(name, dir_fd=dir_fd)
        return
    except FileNotFoundError:
        return
    except OSError:
        child_fd = open_directory(name, dir_fd)
    try:
        for child in subdirectories(child_fd):
            remove_tree(child_fd, child)
    finally:
        os.close(child_fd)
    os.rmdir(name, dir_fd=dir_fd)


def find_mounts(mountinfo: str, own_cgroups: str) -> dict[str, Mount]:
    """Mounts by controller of cgroup v1, and by "" for cgroup2, from /proc/self/mountinfo and /proc/self/cgroup."""
    own: dict[str, str] = {}
    for line in own_cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    mounts: dict[str, Mount] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, top = (_unescape(field) for field in before.split(" ")[3:5])
        for controller in [""] if kind == "cgroup2" else options.split(","):
            if controller in own and controller not in mounts:
                mounts[controller] = Mount(top, top + _below(root, own[controller]))
    return mounts


def _below(root: str, path: str) -> str:
    """Where `path` is below a mount of `root`: a container may see only a part of the hierarchy."""
    root = root.rstrip("/")
    if ".." in path.split("/") or not (path + "/").startswith(root + "/"):
        return ""
    return path[len(root) :].rstrip("/")


def _unescape(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field
