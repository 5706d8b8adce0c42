"""Which disk a path means: on a sysfs made for the case, and on this machine's own."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobworker import blockdevice
from jobworker.blockdevice import NoDiskError


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """A disk with two partitions, an nvme namespace with one, and volumes on top of them."""
    block = tmp_path / "dev" / "block"
    block.mkdir(parents=True)

    def device(number: str, place: str, *, partition: bool = False) -> Path:
        directory = tmp_path / "devices" / place
        directory.mkdir(parents=True)
        (directory / "dev").write_text(number + "\n")
        if partition:
            (directory / "partition").write_text("1\n")
        (block / number).symlink_to(directory)
        return directory

    device("8:0", "sda")
    sda1 = device("8:1", "sda/sda1", partition=True)
    sda2 = device("8:2", "sda/sda2", partition=True)
    device("259:0", "nvme0n1")
    nvme0n1p1 = device("259:1", "nvme0n1/nvme0n1p1", partition=True)
    volumes = {
        "253:0": ("dm-0", [nvme0n1p1]),
        "253:2": ("dm-2", [sda1, nvme0n1p1]),
        "253:3": ("dm-3", [sda2]),
    }
    for number, (name, below) in volumes.items():
        slaves = device(number, name) / "slaves"
        slaves.mkdir()
        for part in below:
            (slaves / part.name).symlink_to(part)
    upper = device("253:1", "dm-1") / "slaves"  # LUKS upon LVM
    upper.mkdir()
    (upper / "dm-0").symlink_to(tmp_path / "devices" / "dm-0")
    return tmp_path


@pytest.mark.parametrize(
    ("number", "disk"),
    [
        ("8:0", "8:0"),
        ("8:1", "8:0"),
        ("259:1", "259:0"),
        ("253:0", "259:0"),
        ("253:1", "259:0"),
        ("253:3", "8:0"),
    ],
)
def test_partitions_and_volumes_are_their_disk(sysfs: Path, number: str, disk: str) -> None:
    assert blockdevice.whole_disk(number, sysfs=sysfs) == disk


def test_a_volume_on_several_disks_is_refused_by_their_names(sysfs: Path) -> None:
    with pytest.raises(NoDiskError, match="spread over nvme0n1p1, sda1"):
        blockdevice.whole_disk("253:2", sysfs=sysfs)


def test_a_number_that_the_kernel_does_not_know(sysfs: Path) -> None:
    with pytest.raises(NoDiskError, match="knows no block device 7:99"):
        blockdevice.whole_disk("7:99", sysfs=sysfs)


def test_a_path_is_on_the_disk_of_its_file_system(tmp_path: Path) -> None:
    device = os.stat(tmp_path).st_dev
    if os.major(device) == 0:
        pytest.skip("the temporary directory is on no disk")
    place = blockdevice.find(str(tmp_path))
    assert (Path("/sys/dev/block") / place.device).exists()
    assert place.filesystem


def test_a_device_is_itself() -> None:
    disks = [
        path
        for path in Path("/dev").iterdir()
        if path.is_block_device() and path.name[:2] in ("vd", "sd", "ub")
    ]
    if not disks:
        pytest.skip("there is no disk in /dev")
    number = os.stat(disks[0]).st_rdev
    place = blockdevice.find(str(disks[0]))
    assert place.filesystem == ""
    assert place.device.partition(":")[0] == str(os.major(number))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/no/such/path", "no such file or directory"),
        ("/proc/self/status", "in a proc, which is on no disk"),
        ("/sys", "in a sysfs, which is on no disk"),
    ],
)
def test_what_is_on_no_disk_is_refused_with_the_reason(path: str, reason: str) -> None:
    with pytest.raises(NoDiskError, match=reason):
        blockdevice.find(path)


Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts something in a directory of its own; a skip where that is not possible."""
    with ExitStack() as stack:

        def mounted(*arguments: str) -> Path:
            place = tmp_path / f"mounted-{len(os.listdir(tmp_path))}"
            place.mkdir()
            done = subprocess.run(
                ["mount", *arguments, str(place)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                pytest.skip(f"cannot be mounted: {done.stderr.strip()}")
            stack.callback(subprocess.run, ["umount", str(place)], check=True)
            return place

        yield mounted


def test_a_file_system_in_memory_is_refused_by_its_name(mount: Mount) -> None:
    with pytest.raises(NoDiskError, match="in a tmpfs, which is on no disk"):
        blockdevice.find(str(mount("-t", "tmpfs", "tmpfs")))


def layers(top: Path) -> list[str]:
    for name in ("lower", "upper", "work"):
        (top / name).mkdir()
    return [f"lowerdir={top}/lower", f"upperdir={top}/upper", f"workdir={top}/work"]


def test_an_overlay_is_the_disk_of_its_layers(tmp_path: Path, mount: Mount) -> None:
    if os.major(os.stat(tmp_path).st_dev) == 0:
        pytest.skip("the temporary directory is on no disk")
    overlay = mount("-t", "overlay", "overlay", "-o", ",".join(layers(tmp_path)))
    assert blockdevice.find(str(overlay)) == blockdevice.find(str(tmp_path))


def test_an_overlay_in_memory_is_refused(mount: Mount) -> None:
    memory = mount("-t", "tmpfs", "tmpfs")
    overlay = mount("-t", "overlay", "overlay", "-o", ",".join(layers(memory)))
    with pytest.raises(NoDiskError, match="of one of its layers, it is in a tmpfs"):
        blockdevice.find(str(overlay))


def test_a_file_system_on_a_loop_device_is_on_that(tmp_path: Path, mount: Mount) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(4 << 20)
    made = subprocess.run(
        ["mke2fs", "-q", "-F", str(image)],
        capture_output=True, check=False, env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no file system can be made")
    place = blockdevice.find(str(mount("-o", "loop", str(image))))
    assert place.device.startswith("7:")
