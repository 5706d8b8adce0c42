"""The messages of the API, under the names this library shows them by, loaded when first touched.

The generated classes are the data model: nothing here copies them. They take longer to import than most
commands take to run, so code says `types.JobRecord` where it needs one and pays only then.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from generated.jobworker.v1 import (
        CgroupMode,
        ClientRecord,
        EndReason,
        GapReason,
        IoLimit,
        JobRecord,
        JobSpec,
        JobState,
        Keep,
        Limits,
        OutputBlock,
        OutputInfo,
        Pressure,
        Retention,
        RLimit,
        Role,
        StartFailure,
        StartStage,
        Storage,
        Termination,
        UnenforcedLimit,
        Usage,
    )
    from generated.jobworker.v1 import GetWorkerResponse as Worker
    from generated.jobworker.v1 import OutputCap as _OutputCap
    from jobwire.codec import decode

    class OutputCap(_OutputCap):
        """The message itself; a type checker, to which a betterproto enum's values are ints, is told that they fit."""

        def __init__(self, *, max_bytes: int | None = None, keep: int = ...) -> None: ...


__all__ = [
    "CgroupMode",
    "ClientRecord",
    "EndReason",
    "GapReason",
    "IoLimit",
    "JobRecord",
    "JobSpec",
    "JobState",
    "Keep",
    "Limits",
    "OutputBlock",
    "OutputCap",
    "OutputInfo",
    "Pressure",
    "RLimit",
    "Retention",
    "Role",
    "StartFailure",
    "StartStage",
    "Storage",
    "Termination",
    "UnenforcedLimit",
    "Usage",
    "Worker",
    "decode",
]

_MODULES = {"decode": "jobwire.codec"}
_NAMES = {"Worker": "GetWorkerResponse"}

if not TYPE_CHECKING:

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module 'jobctl.types' has no attribute '{name}'")
        module = import_module(_MODULES.get(name, "generated.jobworker.v1"))
        value = globals()[name] = getattr(module, _NAMES.get(name, name))
        return value
