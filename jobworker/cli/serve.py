"""`jobworker serve`: every setting is a flag, made from the settings' own declaration."""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from jobworker import settings
from jobworker.cli.place import Config, from_file

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

if TYPE_CHECKING:

    @dataclasses.dataclass
    class Flags:
        """What was typed, by setting."""
else:
    Flags = dataclasses.make_dataclass(
        "Flags",
        [
            (field.name, Annotated[str | None, Parameter(help=settings.explain(field))], None)
            for field in dataclasses.fields(settings.Settings)
        ],
        namespace={"__module__": __name__},  # else it counts as one of the language's own types
    )

NOTHING = Flags()


def serve(*, config: Config = None, flags: Annotated[Flags, Parameter(name="*")] = NOTHING) -> int:
    """Serves until told to end; 0."""
    given: dict[str, str | None] = dataclasses.asdict(flags)
    told = settings.resolve(given, environment=os.environ, file=from_file(config))
    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    from jobworker.server import run  # noqa: PLC0415 - half a second that wrong settings need not wait for

    run(told)
    return 0
