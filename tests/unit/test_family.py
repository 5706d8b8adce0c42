"""Families of real processes, read in both ways."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jobworker.supervisor import family

TREE = """
import subprocess, sys, threading
nap = [sys.executable, "-S", "-E", "-c", "print(flush=True); import time; time.sleep(100)"]
made = []
def make():
    made.append(subprocess.Popen(nap, stdout=subprocess.PIPE))
    made[-1].stdout.readline()
make()
maker = threading.Thread(target=lambda: (make(), gone.wait()))
gone = threading.Event()
maker.start()
while len(made) < 2:
    pass
made.append(subprocess.Popen(["sh", "-c", "sleep 100 & echo; wait"], stdout=subprocess.PIPE))
made[-1].stdout.readline()
print(*(each.pid for each in made), flush=True)
sys.stdin.read()
for each in made:
    each.kill()
gone.set()
"""


@pytest.fixture(params=[True, False], ids=["children", "stat"])
def by_file(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the kernel is taken to have lists of children."""
    has_files: bool = request.param
    if not has_files:
        monkeypatch.setattr(family, "children", family._children_by_stat)
    elif not family._has_children_files():
        pytest.skip("needs a kernel with CONFIG_PROC_CHILDREN")
    return has_files


@pytest.fixture
def parent() -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-S", "-E", "-c", TREE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        for pid in family.descendants(process.pid):
            os.kill(pid, 9)
        process.stdin.close()


@pytest.mark.usefixtures("by_file")
def test_children_of_all_threads_and_theirs(parent: "subprocess.Popen[str]") -> None:
    assert parent.stdout is not None
    made = {int(pid) for pid in parent.stdout.readline().split()}
    assert len(made) == 3
    assert set(family.children(parent.pid)) == made
    found = family.descendants(parent.pid)
    assert len(found) == len(set(found)) == 4
    assert set(found) > made
    assert all(map(family.is_alive, found))


def test_a_zombie_is_a_child_and_not_alive() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert pid in family.children(os.getpid())
    assert not family.is_alive(pid)
    os.waitpid(pid, 0)
    assert pid not in family.children(os.getpid())
    assert not family.is_alive(pid)
    assert family.children(pid) == []


def test_a_name_may_hold_anything() -> None:
    script = "open('/proc/self/comm', 'w').write(') S 1 (x'); print(flush=True); input()"
    command = [sys.executable, "-S", "-E", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process.pid in family._children_by_stat(os.getpid())
        assert family.is_alive(process.pid)
        process.kill()


@pytest.mark.usefixtures("by_file")
def test_that_nothing_can_be_seen_is_not_taken_for_nobody() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            family.descendants(os.getpid())
        with pytest.raises(OSError, match="Too many open files"):
            family.is_alive(os.getpid())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
