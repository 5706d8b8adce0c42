"""Certificates on disk: modes from the first moment, nothing replaced by accident, damage named."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ca import files
from ca.authority import Authority
from tests.harness.probes import needs_full_device


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


@pytest.fixture(params=[0o000, 0o022, 0o277], ids=oct)
def umask(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_keys_are_private_and_certificates_public_whatever_the_umask(
    tmp_path: Path, authority: Authority
) -> None:
    files.save_authority(tmp_path, authority)
    files.save_identity(tmp_path, "alice", authority.issue_client("alice"), authority=authority, password="x")
    modes = {path.name: mode(path) for path in tmp_path.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca-key.pem": 0o600, "alice.pem": 0o600, "alice.p12": 0o600}


def test_a_directory_made_for_keys_is_private(tmp_path: Path, authority: Authority) -> None:
    files.save_authority(tmp_path / "new", authority)
    assert mode(tmp_path / "new") == 0o700


def test_what_was_saved_is_read_back(tmp_path: Path, authority: Authority) -> None:
    files.save_authority(tmp_path, authority)
    identity = authority.issue_client("alice")
    files.save_identity(tmp_path, "alice", identity, authority=authority, password="x")
    assert files.load_authority(tmp_path).certificate == authority.certificate
    assert files.load_identity(tmp_path, "alice").certificate == identity.certificate


@pytest.mark.parametrize("taken", ["ca.pem", "ca-key.pem"])
def test_an_authority_is_never_replaced_unasked_nor_half(
    tmp_path: Path, authority: Authority, taken: str
) -> None:
    (tmp_path / taken).write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        files.save_authority(tmp_path, authority)
    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_bytes() == b"precious"


def test_a_link_to_nowhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        files.write_new(tmp_path / "link", b"key", mode=0o600)
    assert not (tmp_path / "elsewhere").exists()


def test_replacing_on_demand_also_repairs_the_mode_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o666)
    files.write_over(path, b"new", mode=0o600)
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_replacement_keeps_the_old_and_leaves_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write_over(tmp_path / "key", b"new", mode=0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@needs_full_device
def test_a_write_that_fails_leaves_no_truncated_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open
    opened = tmp_path / "key"

    def onto_a_full_disk(path: Path, flags: int, mode: int) -> int:
        os.close(real(path, flags, mode))
        return real("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(os, "open", onto_a_full_disk)
    with pytest.raises(OSError, match="No space left"):
        files.write_new(opened, b"key" * 10_000, mode=0o600)
    assert not opened.exists()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_directory_that_cannot_be_synced_is_fine_and_one_that_is_ill_is_not(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = os.fsync

    def sync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(number, os.strerror(number))
        real(fd)

    monkeypatch.setattr(os, "fsync", sync)
    if number == errno.EINVAL:
        assert len(files.save_authority(tmp_path, authority)) == 2
    else:
        with pytest.raises(OSError, match="Input/output error"):
            files.save_authority(tmp_path, authority)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "pem", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_damaged_file_is_named(tmp_path: Path, pem: bytes) -> None:
    (tmp_path / "alice.pem").write_bytes(pem)
    with pytest.raises(ValueError, match=r"alice\.pem: not a certificate"):
        files.load_identity(tmp_path, "alice")


def test_a_key_of_another_authority_does_not_load(tmp_path: Path, authority: Authority) -> None:
    files.save_authority(tmp_path, authority)
    files.write_over(tmp_path / "ca-key.pem", Authority.create().key_pem, mode=0o600)
    with pytest.raises(ValueError, match="does not belong"):
        files.load_authority(tmp_path)
