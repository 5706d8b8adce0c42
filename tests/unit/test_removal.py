"""Trees as a hostile program may leave them, removed without touching anything else."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobworker.removal import remove_tree
from tests.harness import probes


def test_nothing_is_fine(tmp_path: Path) -> None:
    remove_tree(tmp_path / "none")
    remove_tree(tmp_path / "none" / "none")


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "precious").write_text("x")
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "link").symlink_to(outside)
    (tree / "a" / "link").symlink_to(outside)
    (tree / "a" / "loop").symlink_to(tree)
    os.mkfifo(tree / "a" / "fifo")
    remove_tree(tree)
    assert not tree.exists()
    assert sorted(os.listdir(outside)) == ["deep", "precious"]


def test_a_link_in_place_of_the_tree_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("x")
    (tmp_path / "tree").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match=r"tree"):
        remove_tree(tmp_path / "tree")
    assert (tmp_path / "outside" / "precious").exists()


def test_depth_costs_neither_stack_nor_descriptors(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    back = os.open(".", os.O_RDONLY)
    try:
        os.chdir(tree)
        for _ in range(3000):  # deeper than PATH_MAX can name
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.fchdir(back)
        os.close(back)
    remove_tree(tree)
    assert not tree.exists()


def test_names_that_it_uses_itself_may_be_taken(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in (".removed-0", ".removed-1", "b"):
        (tree / name / "x" / "y").mkdir(parents=True)
    (tree / ".removed-2").mkdir()
    (tree / ".removed-2" / "file").write_text("x")
    remove_tree(tree)
    assert not tree.exists()


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A directory of user 65534 that it can reach."""
    directory = Path(tempfile.mkdtemp(prefix="jw-removal-"))
    os.chown(directory, 65534, 65534)
    yield directory
    subprocess.run(["rm", "-rf", str(directory)], check=True)


@probes.needs_root
def test_permissions_do_not_stop_an_owner_that_is_not_root(nobodys: Path) -> None:
    tree = nobodys / "tree"
    (tree / "a" / "b" / "c").mkdir(parents=True)
    (tree / "a" / "file").write_text("x")
    for path in (tree / "a" / "b" / "c", tree / "a" / "b", tree / "a", tree):
        os.chown(path, 65534, 65534)
    (tree / "a" / "b" / "c").chmod(0)
    (tree / "a" / "b").chmod(0o500)
    (tree / "a").chmod(0)
    tree.chmod(0o100)
    code = (
        "import os; from pathlib import Path; from jobworker.removal import remove_tree\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"remove_tree(Path({str(tree)!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert not tree.exists()
