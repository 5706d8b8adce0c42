"""How certificates and keys lie on disk: what each file is called, who may read it, and that none is lost by accident.

A file that holds a private key has mode 0600 from the moment it exists, whatever the umask. A file that is there is
never replaced unless asked, and then by rename, so that a reader sees the old one or the new one, whole. What was
reported as written is on the disk: keys cannot be made again, and are often moved elsewhere at once.
"""

import contextlib
import errno
import os
import secrets
from pathlib import Path

from ca.authority import Authority, Identity

PRIVATE, PUBLIC = 0o600, 0o644
RESERVED = frozenset(
    {"ca", "ca-key", "server"}
)  # files of the authority's own, which no client may be named after


def save_authority(directory: Path, authority: Authority, *, replace: bool = False) -> list[Path]:
    """Write ca.pem and ca-key.pem; FileExistsError, and nothing written, if there is one and it is not to be replaced."""
    return _write_all(
        {
            directory / "ca-key.pem": (authority.key_pem, PRIVATE),
            directory / "ca.pem": (authority.certificate_pem, PUBLIC),
        },
        replace=replace,
    )


def load_authority(directory: Path) -> Authority:
    """Read what `save_authority` wrote; FileNotFoundError, or ValueError if the files are damaged or do not match."""
    found = _read(directory / "ca.pem", directory / "ca-key.pem")
    return Authority(found.certificate, found.key)


def save_identity(
    directory: Path,
    name: str,
    identity: Identity,
    *,
    authority: Authority,
    password: str,
    replace: bool = False,
) -> list[Path]:
    """Write NAME.pem (certificate, then key) and NAME.p12; both or, with FileExistsError, neither."""
    p12 = identity.pkcs12(name, password=password, authority=authority.certificate)
    return _write_all(
        {directory / f"{name}.pem": (identity.pem, PRIVATE), directory / f"{name}.p12": (p12, PRIVATE)},
        replace=replace,
    )


def load_identity(directory: Path, name: str) -> Identity:
    """Read NAME.pem; FileNotFoundError, or ValueError if it does not hold a certificate with its key."""
    return _read(directory / f"{name}.pem")


def write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Create a file with exactly this mode; FileExistsError if the name is taken, by a link to nowhere too."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode & PRIVATE)
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            os.fsync(fd)
    except BaseException:
        path.unlink()  # a truncated key is worse than none
        raise


def write_over(path: Path, data: bytes, *, mode: int) -> None:
    """Replace a file, or create it, in one step that a crash cannot cut in half."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    write_new(aside, data, mode=mode)
    try:
        aside.replace(path)
    except OSError:
        aside.unlink()
        raise


def _read(*paths: Path) -> Identity:
    try:
        return Identity.from_pem(b"".join(path.read_bytes() for path in paths))
    except ValueError as error:
        raise ValueError(f"{' and '.join(map(str, paths))}: {error}") from error


def _write_all(files: dict[Path, tuple[bytes, int]], *, replace: bool) -> list[Path]:
    written: list[Path] = []
    try:
        for path, (data, mode) in files.items():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            (write_over if replace else write_new)(path, data, mode=mode)
            written.append(path)
        for directory in {path.parent for path in written}:
            _sync_names(directory)
    except OSError:
        if not replace:
            with contextlib.suppress(OSError):
                for path in written:
                    path.unlink()
        raise
    return written


def _sync_names(directory: Path) -> None:
    """A new name is on the disk when its directory is (fsync(2)), where that can be synced and we may read it."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(fd)
