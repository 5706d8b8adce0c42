"""The state directory: who may look in, who may not have it."""

import os
import stat
from pathlib import Path

import pytest

from jobworker import statedir
from jobworker.errors import FailedPrecondition
from jobworker.statedir import StateDirectory
from tests.harness import probes


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_lets_jobs_pass_and_not_look(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        state = StateDirectory.open(tmp_path / "a" / "state", scratch=tmp_path / "scratch")
    finally:
        os.umask(before)
    assert (mode(state.path), mode(state.jobs), mode(state.scratch)) == (0o711, 0o700, 0o711)
    assert mode(state.path / "lock") == 0o600
    (state.path / "boot").touch(0o666)
    state.note_boot()
    assert mode(state.path / "boot") == 0o600
    assert (state.path / "lock").read_text() == f"{os.getpid()}\n"
    assert state.scratch == tmp_path / "scratch"
    state.close()


def test_a_second_server_is_told_who_is_there(tmp_path: Path) -> None:
    first = StateDirectory.open(tmp_path / "state", scratch=tmp_path / "scratch")
    with pytest.raises(FailedPrecondition, match=rf"another worker serves .* \(pid {os.getpid()}\)"):
        StateDirectory.open(tmp_path / "state")
    first.close()
    StateDirectory.open(tmp_path / "state", scratch=tmp_path / "scratch").close()


def test_what_is_not_surely_of_this_boot_is_not(tmp_path: Path) -> None:
    state = StateDirectory.open(tmp_path / "state", scratch=tmp_path / "scratch")
    assert not state.is_of_this_boot()
    state.note_boot()
    assert state.is_of_this_boot()
    for other in (b"", b"another\n", b"\xff" * 37, (state.path / "boot").read_bytes()[:-1]):
        (state.path / "boot").write_bytes(other)
        assert not state.is_of_this_boot()
    state.close()


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert statedir.make(Path("state")) == tmp_path / "state"


def test_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(FailedPrecondition, match="is not a directory"):
        statedir.make(tmp_path / "state")
    with pytest.raises(FailedPrecondition, match=r"cannot make directory .*: not a directory"):
        statedir.make(tmp_path / "state" / "below")


def test_one_that_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    with pytest.raises(FailedPrecondition, match="can be written by others") as raised:
        statedir.make(tmp_path / "state")
    assert raised.value.hint.startswith("chmod go-w")


@probes.needs_root
def test_one_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 65534, 65534)
    with pytest.raises(FailedPrecondition, match="belongs to uid 65534, the worker runs as uid 0"):
        statedir.make(tmp_path / "state")


@probes.needs_root
def test_scratch_is_elsewhere_when_jobs_could_not_reach_it(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    state = StateDirectory.open(tmp_path / "closed" / "state")
    try:
        assert state.scratch.parent == Path("/var/tmp")
        assert mode(state.scratch) == 0o711
    finally:
        state.close()
        state.scratch.rmdir()


@probes.needs_root
def test_a_trap_in_place_of_that_scratch_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    state = StateDirectory.open(tmp_path / "closed" / "state")
    state.close()
    state.scratch.rmdir()
    state.scratch.symlink_to(tmp_path)
    try:
        with pytest.raises(FailedPrecondition, match="is a symbolic link"):
            StateDirectory.open(tmp_path / "closed" / "state")
    finally:
        state.scratch.unlink()


@probes.needs_no_root
def test_one_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o500)
    with pytest.raises(FailedPrecondition, match="cannot be written"):
        statedir.make(tmp_path / "state")
    with pytest.raises(FailedPrecondition, match="permission denied"):
        statedir.make(tmp_path / "state" / "below")
