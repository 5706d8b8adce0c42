"""`jobworker serve`: every setting is a flag, made from the settings' own declaration."""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from jobworker import settings
from jobworker.cli.place import Config, from_file


def _typed(field: dataclasses.Field[object]) -> type:
    """What is typed after a flag: the setting's text, or nothing."""
    return bool if field.default is False else str


LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

if TYPE_CHECKING:

    @dataclasses.dataclass
    class Flags:
        """What was typed, by setting."""
else:
    Flags = dataclasses.make_dataclass(
        "Flags",
        [
            (field.name, Annotated[_typed(field) | None, Parameter(help=settings.explain(field))], None)
            for field in dataclasses.fields(settings.Settings)
        ],
        namespace={"__module__": __name__},  # else it counts as one of the language's own types
    )

NOTHING = Flags()


def serve(*, config: Config = None, flags: Annotated[Flags, Parameter(name="*")] = NOTHING) -> int:
    """Serves until told to end; 0."""
    typed: dict[str, str | bool | None] = dataclasses.asdict(flags)
    given = {name: "yes" if value is True else value for name, value in typed.items() if value is not False}
    told = settings.resolve(given, environment=os.environ, file=from_file(config))
    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    from jobworker.server import run  # noqa: PLC0415 - half a second that wrong settings need not wait for

    run(told)
    return 0
