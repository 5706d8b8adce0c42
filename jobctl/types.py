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
        Limits,
        OutputInfo,
        Pressure,
        RLimit,
        Role,
        StartFailure,
        StartStage,
        Termination,
        UnenforcedLimit,
        Usage,
    )
    from generated.jobworker.v1 import GetWorkerResponse as Worker
    from jobwire.codec import decode

__all__ = [
    "CgroupMode",
    "ClientRecord",
    "EndReason",
    "GapReason",
    "IoLimit",
    "JobRecord",
    "JobSpec",
    "JobState",
    "Limits",
    "OutputInfo",
    "Pressure",
    "RLimit",
    "Role",
    "StartFailure",
    "StartStage",
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
