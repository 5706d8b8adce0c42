"""jobctl: run programs on a worker from Python.

    async with jobctl.Client.from_context() as client:
        job = await client.start(["make", "-j4"], name="build")
        async for chunk in job.output():
            sys.stdout.buffer.write(chunk.data)
        (await job.wait()).check()

Everything public is here, and loaded when it is first used: `import jobctl` costs next to nothing.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from jobctl.client import Client as Client
    from jobctl.contexts import Context as Context
    from jobctl.errors import AlreadyExists as AlreadyExists
    from jobctl.errors import AmbiguousJob as AmbiguousJob
    from jobctl.errors import ConfigError as ConfigError
    from jobctl.errors import ConnectionLost as ConnectionLost
    from jobctl.errors import FailedPrecondition as FailedPrecondition
    from jobctl.errors import Internal as Internal
    from jobctl.errors import InvalidArgument as InvalidArgument
    from jobctl.errors import JobctlError as JobctlError
    from jobctl.errors import JobFailed as JobFailed
    from jobctl.errors import JobNotFound as JobNotFound
    from jobctl.errors import NotFound as NotFound
    from jobctl.errors import OutputGap as OutputGap
    from jobctl.errors import PermissionDenied as PermissionDenied
    from jobctl.errors import ResourceExhausted as ResourceExhausted
    from jobctl.errors import StartFailed as StartFailed
    from jobctl.errors import Timeout as Timeout
    from jobctl.errors import Unauthenticated as Unauthenticated
    from jobctl.errors import Unavailable as Unavailable
    from jobctl.errors import Unsupported as Unsupported
    from jobctl.events import Chunk as Chunk
    from jobctl.events import Gap as Gap
    from jobctl.events import Stream as Stream
    from jobctl.job import Job as Job
    from jobctl.output import Output as Output
    from jobctl.requests import JobOptions as JobOptions
    from jobctl.result import Completed as Completed
    from jobctl.result import Result as Result
    from jobctl.types import CgroupMode as CgroupMode
    from jobctl.types import ClientRecord as ClientRecord
    from jobctl.types import EndReason as EndReason
    from jobctl.types import GapReason as GapReason
    from jobctl.types import IoLimit as IoLimit
    from jobctl.types import JobRecord as JobRecord
    from jobctl.types import JobSpec as JobSpec
    from jobctl.types import JobState as JobState
    from jobctl.types import Keep as Keep
    from jobctl.types import Limits as Limits
    from jobctl.types import OutputBlock as OutputBlock
    from jobctl.types import OutputCap as OutputCap
    from jobctl.types import OutputInfo as OutputInfo
    from jobctl.types import Pressure as Pressure
    from jobctl.types import Retention as Retention
    from jobctl.types import RLimit as RLimit
    from jobctl.types import Role as Role
    from jobctl.types import StartFailure as StartFailure
    from jobctl.types import StartStage as StartStage
    from jobctl.types import Storage as Storage
    from jobctl.types import Termination as Termination
    from jobctl.types import UnenforcedLimit as UnenforcedLimit
    from jobctl.types import Usage as Usage
    from jobctl.types import Worker as Worker
    from jobwire import __version__ as __version__

_HOMES = {
    "client": ("Client",),
    "contexts": ("Context",),
    "errors": (
        "AlreadyExists",
        "AmbiguousJob",
        "ConfigError",
        "ConnectionLost",
        "FailedPrecondition",
        "Internal",
        "InvalidArgument",
        "JobFailed",
        "JobNotFound",
        "JobctlError",
        "NotFound",
        "OutputGap",
        "PermissionDenied",
        "ResourceExhausted",
        "StartFailed",
        "Timeout",
        "Unauthenticated",
        "Unavailable",
        "Unsupported",
    ),
    "events": ("Chunk", "Gap", "Stream"),
    "job": ("Job",),
    "output": ("Output",),
    "requests": ("JobOptions",),
    "result": ("Completed", "Result"),
    "types": (
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
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: PLE0604 - the names above, each once
    "__version__",
    *_HOME,
]

if not typing.TYPE_CHECKING:

    def __getattr__(name):
        if name == "__version__":
            value = importlib.import_module("jobwire").__version__
        elif name in _HOME:
            value = getattr(importlib.import_module(f"jobctl.{_HOME[name]}"), name)
        else:
            raise AttributeError(f"module 'jobctl' has no attribute '{name}'")
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
