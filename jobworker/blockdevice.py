"""From a path to the disk it is on, by the kernel's own tables.

Decides which disk a limit on a path means: a partition or a volume is its disk, a btrfs or an overlay what it is
made of, and what is on no disk, or on several, is refused with the reason. Looks at paths, which may hang when a
network file system does: not for an event loop. Sources: proc(5) (mountinfo), Documentation/ABI/testing/sysfs-block.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

_NO_DISK = 0  # major number of what the kernel mounts without a device
_DEEPEST = 16  # volumes upon volumes; sysfs has no circles


@dataclass(frozen=True, slots=True)
class Place:
    """A disk by its number, "8:0", and the file system that stores what is at the path ("" for a device itself)."""

    device: str
    filesystem: str


class NoDiskError(Exception):
    """There is no one disk that holds the path; the text is a clause for people."""


@dataclass(frozen=True, slots=True)
class _Mount:
    device: str
    filesystem: str
    source: str
    options: dict[str, str]


def find(path: str, *, sysfs: Path = Path("/sys")) -> Place:
    """The disk that holds a path, or that it is; NoDiskError."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise NoDiskError(os.strerror(error.errno or 0).lower()) from error
    try:
        status = os.fstat(fd)
        mount = None if stat.S_ISBLK(status.st_mode) else _mount_of(fd)
    finally:
        os.close(fd)
    if mount is None:
        return Place(whole_disk(_number(status.st_rdev), sysfs=sysfs), "")
    return _place(mount, _number(status.st_dev), sysfs)


def whole_disk(device: str, *, sysfs: Path) -> str:
    """The disk that a partition or volume is on; NoDiskError when it is on several, or the kernel knows none."""
    for _ in range(_DEEPEST):
        entry = sysfs / "dev" / "block" / device
        if not entry.exists():
            raise NoDiskError(f"the kernel knows no block device {device}")
        if (entry / "partition").exists():
            device = (entry.resolve().parent / "dev").read_text().strip()
            continue
        below = sorted(entry.glob("slaves/*"))
        if not below:
            return device
        if len(below) > 1:
            raise NoDiskError("its volume is spread over " + ", ".join(part.name for part in below))
        device = (below[0] / "dev").read_text().strip()
    raise NoDiskError(f"volumes are stacked more than {_DEEPEST} high")


def _place(mount: _Mount, device: str, sysfs: Path) -> Place:
    if mount.filesystem == "overlay":
        return _place_of_overlay(mount, sysfs)
    if mount.filesystem == "btrfs":
        return Place(_disk_of_btrfs(mount, sysfs), mount.filesystem)
    if device.startswith(f"{_NO_DISK}:"):
        raise NoDiskError(f"it is in a {mount.filesystem}, which is on no disk")
    return Place(whole_disk(device, sysfs=sysfs), mount.filesystem)


def _place_of_overlay(mount: _Mount, sysfs: Path) -> Place:
    """The one disk of all its layers: what is read may come from any, what is written goes to the upper."""
    layers = [mount.options.get("upperdir", ""), *mount.options.get("lowerdir", "").split(":")]
    try:
        places = [find(layer, sysfs=sysfs) for layer in layers if layer]
    except NoDiskError as error:
        raise NoDiskError(f"it is in an overlay, and of one of its layers, {error}") from error
    if len({place.device for place in places}) != 1:
        raise NoDiskError("it is in an overlay whose layers are not on one disk")
    return places[0]


def _disk_of_btrfs(mount: _Mount, sysfs: Path) -> str:
    """Its st_dev is made up; the source is one of its devices, and sysfs knows whether there are more."""
    try:
        device = _number(os.stat(mount.source).st_rdev)
    except OSError as error:
        raise NoDiskError(f"it is in a btrfs whose device '{mount.source}' is not to be seen here") from error
    for filesystem in sysfs.glob("fs/btrfs/*/devices"):
        parts = {(part / "dev").read_text().strip() for part in filesystem.iterdir()}
        if device in parts and len({whole_disk(part, sysfs=sysfs) for part in parts}) > 1:
            raise NoDiskError("it is in a btrfs that is spread over several disks")
    return whole_disk(device, sysfs=sysfs)


def _mount_of(fd: int) -> _Mount:
    number = re.search(r"^mnt_id:\s*(\d+)$", Path(f"/proc/self/fdinfo/{fd}").read_text(), re.MULTILINE)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.rstrip("\n").partition(" - ")
            fields = before.split(" ")
            if number is not None and fields[0] == number[1]:
                return _parse(fields[2], after)
    raise NoDiskError("its mount is not one of ours")


def _parse(device: str, text: str) -> _Mount:
    filesystem, source, options = text.split(" ", 2)
    pairs = (option.partition("=") for option in options.split(","))
    return _Mount(device, filesystem, _plain(source), {key: _plain(value) for key, _, value in pairs})


def _plain(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _number(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"
