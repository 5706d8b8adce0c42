"""What one field of a request may hold: syntax, ranges, counts; each check names the field it refuses.

Pure. Knows no request: which field obeys which check is validate's. A refusal is an InvalidArgument whose
message begins with the field as the .proto files spell it ("spec.argv[1]") and whose hint says what to do.
What only the kernel can know (whether an argument is too long, say) is not refused here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NoReturn

from generated.jobworker import v1
from jobworker.errors import InvalidArgument
from jobworker.supervisor.processlimits import RLIMITS

MAX_ENTRIES = 64  # labels of a job or a filter
MAX_VARIABLES = 4096
MAX_TEXT = 256  # characters of a label's value or a request id
MAX_PATH = 4095  # bytes, PATH_MAX without its NUL
MAX_SIGNAL = 64
MAX_SPAN = timedelta(days=3653)  # ten years: a deadline further away is a mistake
MAX_PIDS = 4_194_304  # the kernel's PID_MAX_LIMIT; pids.max refuses more
MAX_CORES = 65_536
MAX_WEIGHT = 10_000
MAX_OFFSET = 2**63 - 1  # of a file
MAX_CAP = 2**53 - 1  # what the supervisor's protocol holds exactly
MAX_CERTIFICATE = 64 * 1024

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?")
_JOB_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def refuse(field: str, reason: str, hint: str) -> NoReturn:
    raise InvalidArgument(f"{field} {reason}", field=field, hint=hint)


def _match(field: str, text: str, pattern: re.Pattern[str], hint: str) -> None:
    if not text:
        refuse(field, "is missing", hint)
    if not pattern.fullmatch(text):
        refuse(field, f"is not valid: {text[:80]!r}", hint)


def name(field: str, text: str) -> None:
    _match(field, text, _NAME, "use up to 128 letters, digits, '.', '_' and '-', a letter or digit first")


def client_id(field: str, text: str) -> None:
    _match(
        field, text, _CLIENT, "use up to 64 letters, digits, '.', '_', '-' and '@', a letter or digit first"
    )


def user(field: str, text: str) -> None:
    _match(field, text, _USER, "give the name of a Unix user")


def job_id(field: str, text: str) -> None:
    _match(field, text, _JOB_ID, "give the job's whole id")


def id_prefix(field: str, text: str) -> None:
    _match(field, text, _JOB_ID, "give the beginning of a job's id")


def new_job_id(field: str, text: str) -> None:
    _match(field, text, _UUID, "give a UUID in lower case, or leave it out")


def short_text(field: str, text: str) -> None:
    if len(text) > MAX_TEXT:
        refuse(field, f"has {len(text)} characters", f"use at most {MAX_TEXT}")
    if _CONTROL.search(text):
        refuse(field, "holds a control character", "use printable characters only")


def no_nul(field: str, text: str) -> None:
    if "\0" in text:
        refuse(field, "holds a NUL byte", "no program can be given one; pass such data in a file")


def labels(field: str, labels: Mapping[str, str]) -> None:
    if len(labels) > MAX_ENTRIES:
        refuse(field, f"has {len(labels)} entries", f"use at most {MAX_ENTRIES}")
    for key, value in labels.items():
        entry = f"{field}[{key[:80]!r}]"
        if not _LABEL.fullmatch(key):
            refuse(entry, "has a key that is not valid", "use letters, digits, '.', '_', '-' and '/' in keys")
        short_text(entry, value)


def environment(field: str, env: Mapping[str, str]) -> None:
    if len(env) > MAX_VARIABLES:
        refuse(field, f"has {len(env)} entries", f"use at most {MAX_VARIABLES}")
    for key, value in env.items():
        entry = f"{field}[{key[:80]!r}]"
        if not key or "=" in key or "\0" in key:
            refuse(entry, "has a name that is not valid", "a variable's name is not empty and has no '='")
        no_nul(entry, value)


def argv(field: str, argv: list[str]) -> None:
    if not argv:
        refuse(field, "is empty", "give the program to run and its arguments")
    if not argv[0]:
        refuse(f"{field}[0]", "is empty", "it is the program to run")
    for number, argument in enumerate(argv):
        if "\0" in argument:
            no_nul(f"{field}[{number}]", argument)


def workdir(field: str, path: str) -> None:
    no_nul(field, path)
    if not path.startswith("/"):
        refuse(field, "is not an absolute path", "begin it with '/', or leave it out")
    if len(path.encode()) > MAX_PATH:
        refuse(field, "is too long", f"a path has at most {MAX_PATH} bytes")


def signal(field: str, number: int) -> None:
    if not 1 <= number <= MAX_SIGNAL:
        refuse(field, f"is {number}", f"give a signal from 1 to {MAX_SIGNAL}; 15 is SIGTERM")


def span(field: str, span: timedelta, *, shortest: timedelta) -> None:
    if span < shortest:
        refuse(field, f"is {span.total_seconds():g} seconds", f"give at least {shortest.total_seconds():g}")
    if span > MAX_SPAN:
        refuse(field, f"is {span.total_seconds():g} seconds", "give ten years at most")


def count(field: str, number: int, *, most: int) -> None:
    if not 1 <= number <= most:
        refuse(field, f"is {number}", f"give 1 to {most}, or leave it out")


def within(field: str, number: int, *, least: int, most: int) -> None:
    if not least <= number <= most:
        refuse(field, f"is {number}", f"give {least} to {most}, or leave it out")


def rlimit(field: str, name: str, *, soft: int | None, hard: int | None) -> None:
    if name not in RLIMITS:
        refuse(field, "is no resource limit", "use one of " + ", ".join(sorted(RLIMITS)))
    for number in (soft, hard):
        if number is not None and number > MAX_OFFSET:
            refuse(field, f"is {number}", f"give at most {MAX_OFFSET}, or leave it out for unlimited")
    if hard is not None and (soft is None or soft > hard):
        refuse(field, "has a soft limit above the hard one", "give a soft limit up to the hard one")


def cores(field: str, cores: float) -> None:
    if not (math.isfinite(cores) and 0 < cores <= MAX_CORES):
        refuse(field, f"is {cores:g}", f"give cores, above 0 and up to {MAX_CORES}")


def offset(field: str, offset: int) -> None:
    """Also a number of bytes or lines, of which 0 is one."""
    if offset > MAX_OFFSET:
        refuse(field, f"is {offset}", f"give at most {MAX_OFFSET}")


def not_before(field: str, end: Any, *, start: Any, start_field: str) -> None:
    if end < start:
        refuse(field, f"is before {start_field}", f"give one that is not, or leave {start_field} out")


def certificate(field: str, data: bytes) -> None:
    if not data:
        refuse(field, "is missing", "send the client's certificate, DER or PEM")
    if len(data) > MAX_CERTIFICATE:
        refuse(field, f"has {len(data)} bytes", f"a certificate has at most {MAX_CERTIFICATE}")


def all_known(field: str, numbers: Sequence[int], known_ones: type[Any], *, zero: bool) -> None:
    if len(numbers) > MAX_ENTRIES:
        refuse(field, f"has {len(numbers)} entries", f"use at most {MAX_ENTRIES}")
    for index, number in enumerate(numbers):
        known(f"{field}[{index}]", number, known_ones, zero=zero)


def known(field: str, number: int, known: type[Any], *, zero: bool) -> None:
    """`zero`: whether UNSPECIFIED, which is 0 in every enum, may be asked for."""
    if number not in _NUMBERS[known] or (number == 0 and not zero):
        refuse(field, f"is {int(number)}", "use one of " + _names_of(known, zero=zero))


_NUMBERS = {cls: {int(member) for member in cls} for cls in (v1.JobState, v1.Keep, v1.Stream, v1.Role)}


def _names_of(cls: Any, *, zero: bool) -> str:
    return ", ".join(f"{member.name} ({int(member)})" for member in cls if zero or int(member))
