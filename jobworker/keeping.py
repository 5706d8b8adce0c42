"""How much output is kept, of one job by default and of all that have ended, and how that is told to clients.

Decides nothing: the settings' values as the messages and limits that others need, and the state of the file
system beside them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from generated.jobworker.v1 import Keep, OutputCap, Retention, Storage
from jobworker.retention import NO_LIMITS, Limits
from jobworker.settings import Settings


@dataclass(frozen=True, slots=True)
class Keeping:
    """`default_cap` for jobs that name none, None: no cap; `retention` for all that have ended."""

    default_cap: OutputCap | None = None
    retention: Limits = NO_LIMITS


EVERYTHING = Keeping()


def keeping(settings: Settings) -> Keeping:
    """As the worker was told."""
    cap = settings.output_cap
    limits = Limits(
        max_bytes=settings.retain_bytes, max_age=settings.retain_for, max_jobs=settings.retain_jobs
    )
    return Keeping(None if cap is None else OutputCap(max_bytes=cap, keep=Keep(Keep.NEWEST)), limits)


def describe(kept: Keeping, directory: Path, *, ended_bytes: int, blocked_jobs: int) -> Storage:
    """What clients are told of the storage in which `directory` is."""
    space = os.statvfs(directory)
    return Storage(
        ended_bytes=ended_bytes,
        free_bytes=space.f_bavail * space.f_frsize,
        blocked_jobs=blocked_jobs,
        retention=Retention(
            max_bytes=kept.retention.max_bytes,
            max_age=kept.retention.max_age,
            max_jobs=kept.retention.max_jobs,
        ),
        default_cap=kept.default_cap or OutputCap(),
    )
