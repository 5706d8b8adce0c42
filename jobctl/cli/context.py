"""`jobctl context list | use | add`: the configuration file, edited as text so that what people wrote in it stays.

Every change is read back before it replaces the file, whole and by rename; who else changes it waits meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from jobctl.cli import render
from jobctl.cli.session import DEFAULT, Session, show
from jobctl.contexts import ConfigFile, config_path, parse_config, read_config, split_address
from jobctl.errors import AlreadyExists, ConfigError, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

_CURRENT = re.compile(r"^\s*current\s*=.*$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9_-]+")


def list_context(*, session: Session = DEFAULT) -> int:
    """List the contexts; * marks the current one."""
    config = read_config(config_path())
    if session.as_json:
        for name in config.tables:
            session.emit({"name": name, "current": name == config.current, **config.values(name)})
        return 0
    rows = [
        ("*" if name == config.current else "", name, values.get("address", ""), values.get("cert", ""))
        for name, values in config.tables.items()
    ]
    for line in render.table(("", "NAME", "ADDRESS", "CERT"), rows):
        show(line)
    return 0


def use_context(name: str, /, *, session: Session = DEFAULT) -> int:
    """Make a context the current one.

    Parameters
    ----------
    name
        One that `jobctl context list` shows.
    """
    read_config(config_path()).context(name)
    with _next(config_path()) as aside:
        config = read_config(config_path())
        config.context(name)
        _replace(config, with_current(_text(config), name), aside)
    if session.as_json:
        session.emit({"name": name, "current": True})
    return 0


def add_context(
    name: str,
    /,
    *,
    address: str,
    ca: str,
    cert: str,
    key: str | None = None,
    format: Annotated[str, Parameter(name=["--format", "-o"])] = "text",  # noqa: A002 - as on every verb
) -> int:
    """Add a context to the configuration file; the first one becomes the current one.

    Parameters
    ----------
    name
        Letters, digits, - and _.
    address
        HOST:PORT of the worker.
    ca
        File with the CA certificate that the worker's is of.
    cert
        File with our certificate, and the key if it is in the same file.
    key
        File with our private key.
    format
        What to print: text, or json.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"'{name}' is no name for a context", hint="letters, digits, - and _")
    split_address(address)
    values = {"address": address, "ca": os.path.abspath(ca), "cert": os.path.abspath(cert)}
    if key is not None:
        values["key"] = os.path.abspath(key)
    with _next(config_path()) as aside:
        config = read_config(config_path())
        if name in config.tables:
            raise AlreadyExists(
                f"there is a context '{name}' already", hint=f"edit or remove it in {config.path}"
            )
        text = with_context(_text(config), name, values)
        _replace(config, text if config.current else with_current(text, name), aside)
    if format == "json":
        Session(format="json").emit({"name": name, "current": not config.current, **values})
    return 0


def with_context(text: str, name: str, values: dict[str, str]) -> str:
    """The file with one more table at its end."""
    gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    return (
        text
        + gap
        + f"[context.{name}]\n"
        + "".join(f"{what} = {_quoted(value)}\n" for what, value in values.items())
    )


def with_current(text: str, name: str) -> str:
    """The file with another `current`: in its line, or in a new first one. Tables have no such key: it is at the top."""
    line = f"current = {_quoted(name)}"
    top = re.search(r"^\s*\[", text, re.MULTILINE)
    end = top.start() if top else len(text)
    if _CURRENT.search(text[:end]):
        return _CURRENT.sub(lambda _: line, text[:end], count=1) + text[end:]
    return f"{line}\n{text}"


def _quoted(value: str) -> str:
    """A TOML basic string; JSON's escapes are a part of TOML's."""
    import json  # noqa: PLC0415

    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _text(config: ConfigFile) -> str:
    try:
        with open(config.path, encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""


@contextmanager
def _next(path: str) -> Iterator[int]:
    """The file beside, which will be renamed to this one; it is had by one at a time. Raises ConfigError."""
    if os.path.exists(path) and not os.path.isfile(path):  # as root we could replace /dev/null
        raise ConfigError(f"cannot write {path}: no regular file")
    try:
        beside = _beside(path)
        os.makedirs(os.path.dirname(beside), mode=0o700, exist_ok=True)
        aside = _open_alone(beside)
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield aside
    finally:
        with suppress(FileNotFoundError):  # it has its name
            if os.path.samestat(os.fstat(aside), os.stat(beside)):
                os.unlink(beside)
        os.close(aside)


def _beside(path: str) -> str:
    """Where a link leads to, for that is replaced and not the link."""
    return os.path.realpath(path) + ".new"


def _open_alone(path: str) -> int:
    while True:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        os.close(fd)  # who had it before us has given it its name, or removed it


def _replace(config: ConfigFile, text: str, aside: int) -> None:
    """Writes the file if it says what it should, else raises ConfigError and leaves it."""
    parse_config(text.encode(), config.path)
    try:
        with open(aside, "w", encoding="utf-8", newline="", closefd=False) as file:
            file.truncate(0)
            file.write(text)
        os.replace(_beside(config.path), os.path.realpath(config.path))
    except OSError as error:
        raise _cannot_write(config.path, error) from error


def _cannot_write(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write {path}: {(error.strerror or str(error)).lower()}")
