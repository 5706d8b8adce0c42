"""Files of jobs that are to go: set aside at once, removed in their own time, found again after a crash.

Decides that only what was set aside by a deletion is ever removed. A directory that no record knows is left
alone and logged: the records may be what is wrong.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from jobworker.removal import remove_tree
from jobworker.statedir import StateDirectory

ASIDE = ".deleted-"

logger = logging.getLogger(__name__)


def set_aside(state: StateDirectory, job_id: str) -> list[Path]:
    """Renames what the job has on disk; the new names, for `remove`. OSError when that is not possible."""
    moved = []
    for place in (state.jobs, state.scratch):
        with contextlib.suppress(FileNotFoundError):
            os.rename(place / job_id, place / (ASIDE + job_id))
            moved.append(place / (ASIDE + job_id))
    return moved


def remove(paths: list[Path]) -> None:
    """Removes what was set aside; may take long. OSError names what is in the way."""
    for path in paths:
        remove_tree(path)


def find(state: StateDirectory, *, known: set[str]) -> list[Path]:
    """What an interrupted deletion has left; logs the directories that belong to no job of `known`.

    Names with a dot are ours or the supervisor's, which makes a job's directory before it has the job.
    """
    names = os.listdir(state.jobs)
    strays = [name for name in names if name not in known and not name.startswith(".")]
    if strays:
        logger.warning("%d directories in '%s' belong to no job: %s", len(strays), state.jobs, strays[:10])
    aside = [state.jobs / name for name in names if name.startswith(ASIDE)]
    aside += [state.scratch / name for name in os.listdir(state.scratch) if name.startswith(ASIDE)]
    return aside


def remove_quietly(paths: list[Path]) -> None:
    """Removes what it can, and logs what it cannot."""
    for path in paths:
        try:
            remove_tree(path)
        except OSError as error:
            logger.warning("'%s' of a deleted job cannot be removed: %s", path, error)
