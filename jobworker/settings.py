"""What the worker is told: flags, JOBWORKER_* variables and a TOML file, in that order of weight.

Every setting is declared once, as a field of `Settings` that carries its text for people and how its text
is read; the flag, the variable and the key in the file are derived from the field's name. Errors name the
setting and where its value came from. Nothing here looks whether files are there or addresses are free.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from jobworker.errors import InvalidArgument
from jobworker.settingvalues import (
    DEFAULT_PORT,
    Address,
    UidRange,
    or_none,
    parse_address,
    parse_age,
    parse_count,
    parse_flag,
    parse_path,
    parse_seconds,
    parse_size,
    parse_text,
    parse_uid_range,
    write_age,
    write_flag,
    write_size,
)

ENVIRONMENT_PREFIX = "JOBWORKER_"


def _read(
    parse: Callable[[str], object], text: str, *, write: Callable[[Any], str] = str
) -> dict[str, object]:
    return {"parse": parse, "text": text, "write": write}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything `jobworker serve` is told."""

    cert: Path = field(
        metadata=_read(parse_path, "The server's certificate chain, PEM; its key may be in the same file.")
    )
    client_ca: Path = field(
        metadata=_read(parse_path, "Certificates that clients' certificates must be signed by, PEM.")
    )
    key: Path | None = field(
        default=None,
        metadata=_read(parse_path, "The certificate's private key, PEM, when in a file of its own."),
    )
    state: Path = field(default=Path("state"), metadata=_read(parse_path, "Directory of all state."))
    listen: Address = field(
        default=Address("127.0.0.1", DEFAULT_PORT),
        metadata=_read(parse_address, "Address to listen on, HOST:PORT."),
    )
    uid_range: UidRange = field(
        default=UidRange(61184, 65519),
        metadata=_read(parse_uid_range, "Uids for clients that have no Unix user, FIRST-LAST."),
    )
    scratch: Path | None = field(
        default=None,
        metadata=_read(
            parse_path, "Directory of the jobs' scratch directories, when not in the state directory."
        ),
    )
    cgroup_root: str | None = field(
        default=None,
        metadata=_read(parse_text, "The cgroup the worker makes its tree in, when it shall not choose."),
    )
    drain_seconds: float = field(
        default=10.0,
        metadata=_read(parse_seconds, "How long calls in flight may take once it was asked to end."),
    )
    stop_jobs: bool = field(
        default=False,
        metadata=_read(
            parse_flag, "Stop all jobs when it was asked to end; they run on otherwise.", write=write_flag
        ),
    )
    max_request_bytes: int = field(
        default=4 * 2**20,
        metadata=_read(parse_size, "The largest request that is accepted.", write=write_size),
    )
    output_cap: int | None = field(
        default=4 * 2**30,
        metadata=_read(
            or_none(parse_size),
            "How much of a job's output is kept, the newest, when the job does not say; or none.",
            write=write_size,
        ),
    )
    retain_bytes: int | None = field(
        default=32 * 2**30,
        metadata=_read(
            or_none(parse_size),
            "How much output of finished jobs is kept on the disk; the oldest jobs are deleted; or none.",
            write=write_size,
        ),
    )
    retain_for: timedelta | None = field(
        default=timedelta(days=30),
        metadata=_read(
            or_none(parse_age),
            "How long finished jobs are kept before they are deleted; or none.",
            write=write_age,
        ),
    )
    retain_jobs: int | None = field(
        default=10_000,
        metadata=_read(
            or_none(parse_count), "How many finished jobs are kept; the oldest are deleted; or none."
        ),
    )
    reader_patience: timedelta | None = field(
        default=timedelta(minutes=5),
        metadata=_read(
            or_none(parse_age),
            "How long a reader of output may take nothing before its stream is ended; or none.",
            write=write_age,
        ),
    )


def flag(name: str) -> str:
    """How the setting is spelled on the command line."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """How the setting is spelled in the environment."""
    return ENVIRONMENT_PREFIX + name.upper()


def read_file(path: Path) -> dict[str, str]:
    """The settings in a TOML file as text, by name; paths in it are relative to the file's own directory."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgument(
            f"cannot read settings file '{path}': {(error.strerror or str(error)).lower()}", field="config"
        ) from error
    except ValueError as error:
        raise InvalidArgument(f"settings file '{path}' is not TOML: {error}", field="config") from error
    fields = {entry.name: entry for entry in dataclasses.fields(Settings)}
    values = {}
    for name, value in content.items():
        is_flag = name in fields and fields[name].metadata["parse"] is parse_flag
        if (
            name not in fields
            or isinstance(value, bool) > is_flag
            or not isinstance(value, str | int | float)
        ):
            raise InvalidArgument(
                f"settings file '{path}': '{name}' is not a setting with a text, a number, or yes or no",
                field=name,
                hint="the settings are " + ", ".join(fields),
            )
        is_path = fields[name].metadata["parse"] is parse_path
        values[name] = str(path.parent / str(value)) if is_path and value else str(value)
    return values


def resolve(
    flags: Mapping[str, str | None], *, environment: Mapping[str, str], file: Mapping[str, str]
) -> Settings:
    """Each setting from the first place that has it; InvalidArgument names the setting that is wrong or missing."""
    names = [entry.name for entry in dataclasses.fields(Settings)]
    return Settings(**{name: resolve_one(name, flags, environment=environment, file=file) for name in names})


def resolve_one(
    name: str, flags: Mapping[str, str | None], *, environment: Mapping[str, str], file: Mapping[str, str]
) -> Any:
    """One setting, as `resolve` finds it."""
    entry = next(entry for entry in dataclasses.fields(Settings) if entry.name == name)
    places = (
        (flag(name), flags.get(name)),
        (variable(name), environment.get(variable(name))),
        (f"'{name}' in the settings file", file.get(name)),
    )
    for place, text in places:
        if text is not None:
            return _parse(name, text, place=place, parse=entry.metadata["parse"])
    if entry.default is dataclasses.MISSING:
        raise InvalidArgument(
            f"setting '{name}' is missing", field=name, hint=f"give {flag(name)}, or set {variable(name)}"
        )
    return entry.default


def explain(entry: dataclasses.Field[Any]) -> str:
    """What a setting is, for people, with its default."""
    if entry.default is dataclasses.MISSING or entry.default is None:
        return str(entry.metadata["text"])
    return f"{entry.metadata['text']} Default: {entry.metadata['write'](entry.default)}"


def _parse(name: str, text: str, *, place: str, parse: Callable[[str], object]) -> object:
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidArgument(f"{place} is wrong: '{text}'", field=name, hint=str(error)) from error
