"""What every verb is told: which worker, as whom, and for whom it prints.

The options are the same on every verb, so they are one dataclass that cyclopts flattens into each. Data goes to stdout
through here, text for people or one JSON object a line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from cyclopts import Group, Parameter

from jobctl.cli.failure import writing
from jobctl.cli.runloop import PATIENCE
from jobctl.client import Client
from jobctl.contexts import choose
from jobctl.errors import InvalidArgument

T = TypeVar("T")

_GROUP = Group("Worker and identity", sort_key=90)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Options of every verb."""

    context: Annotated[str | None, Parameter(group=_GROUP)] = None
    """A context of the configuration file, instead of its current one (JOBCTL_CONTEXT)."""
    address: Annotated[str | None, Parameter(group=_GROUP)] = None
    """HOST:PORT of the worker (JOBCTL_ADDRESS)."""
    ca: Annotated[str | None, Parameter(group=_GROUP)] = None
    """File with the CA certificate that the worker's is of (JOBCTL_CA)."""
    cert: Annotated[str | None, Parameter(group=_GROUP)] = None
    """File with our certificate, and the key if it is in the same file (JOBCTL_CERT)."""
    key: Annotated[str | None, Parameter(group=_GROUP)] = None
    """File with our private key (JOBCTL_KEY)."""
    format: Annotated[Literal["text", "json"], Parameter(name=["--format", "-o"])] = "text"
    """What to print: text, or json (one object a line, errors included)."""

    @property
    def as_json(self) -> bool:
        """Whether programs read what is printed."""
        return self.format == "json"

    def client(self) -> Client:
        """The worker, as these options, the environment and the configuration file have it; raises ConfigError."""
        chosen = choose(self.context, address=self.address, ca=self.ca, cert=self.cert, key=self.key)
        return Client(chosen.address, ca=chosen.ca, cert=chosen.cert, key=chosen.key, patience=PATIENCE)

    def emit(self, facts: dict[str, object]) -> None:
        """One JSON object as a line of data."""
        import json  # noqa: PLC0415 - text output has no use for it

        show(json.dumps(facts, ensure_ascii=False))


DEFAULT = Session()


def show(line: str) -> None:
    """A line of data; raises JobctlError when it cannot be written, BrokenPipeError when nobody reads."""
    with writing():
        sys.stdout.write(line + "\n")


def read(option: str, parser: Callable[[str], T], text: str, *, hint: str = "") -> T:
    """The value of an option; raises InvalidArgument naming the option, which is wrong usage."""
    try:
        return parser(text)
    except ValueError as error:
        raise InvalidArgument(f"{option}: {error}", field=option, hint=hint) from None


def read_all(option: str, parser: Callable[[Iterable[str]], T], texts: Iterable[str]) -> T:
    """The value of an option that may be repeated."""
    try:
        return parser(texts)
    except ValueError as error:
        raise InvalidArgument(f"{option}: {error}", field=option) from None
