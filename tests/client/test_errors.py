"""Errors of the library leave a process of a pool as they were raised in it."""

import copy
import errno
import pickle

import pytest

from jobctl import errors
from jobctl.ending import EXITED, STAGE_EXEC, Ending, Failure
from jobctl.events import Gap
from jobctl.result import Result

RAISED = [
    errors.JobctlError("message", hint="hint", job_id="0199"),
    errors.InvalidArgument("message", field="spec.argv", hint="hint"),
    errors.AmbiguousJob("message", candidates=("0199", "0200"), hint="hint"),
    errors.StartFailed("message", failure=Failure(STAGE_EXEC, errno.ENOENT, "not found"), job_id="0199"),
    errors.JobFailed("message", result=Result("0199", Ending(EXITED, exit_code=3), b"tail")),
    errors.OutputGap(Gap(5, 9, 1), job_id="0199"),
    errors.Timeout("not done within 1 s"),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_what_is_pickled_or_copied_is_the_same(error: errors.JobctlError) -> None:
    error.add_note("while building")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
        assert again.__notes__ == ["while building"]


def test_every_error_with_a_constructor_of_its_own_is_tried() -> None:
    own = {kind for kind in vars(errors).values() if isinstance(kind, type) and "__init__" in vars(kind)}
    assert own <= {type(error) for error in RAISED}
