"""Limits between the API's words and the supervisor's, and what only an admin may ask for."""

from pathlib import Path
from typing import Any

import pytest

from generated.jobworker.v1 import IoLimit, Limits, RLimit
from jobworker import limits as terms
from jobworker.errors import InvalidArgument, PermissionDenied
from jobworker.policy import ADMIN, OPERATOR, Caller
from jobworker.supervisor.limitrequests import lift, limits, unenforced
from jobworker.supervisor.protocol import BadRequestError

ALICE = Caller("alice", OPERATOR)
ROOT = Caller("root", ADMIN)


async def test_what_is_absent_is_not_told() -> None:
    assert await terms.ask(None, field="limits") == terms.NOTHING
    asked = await terms.ask(Limits(cpus=1.5, swap_bytes=0, nice=0), field="limits")
    assert asked.limits == {"cpus": 1.5, "swap_bytes": 0, "nice": 0}


async def test_resource_limits_are_pairs_and_come_back_as_they_went() -> None:
    wanted = Limits(pids=5, rlimits={"core": RLimit(), "nofile": RLimit(soft=0, hard=9)})
    asked = await terms.ask(wanted, field="limits")
    assert asked.limits == {"pids": 5, "rlimits": {"core": (None, None), "nofile": (0, 9)}}
    assert terms.in_force(asked.limits) == wanted


async def test_a_path_on_no_disk_is_not_told_and_its_reason_kept() -> None:
    wanted = Limits(io=[IoLimit(path="/proc", read_bytes_per_second=1)])
    asked = await terms.ask(wanted, field="limits")
    assert "io" not in asked.limits
    assert asked.unenforced == [{"limit": "io", "reason": "'/proc': it is in a proc, which is on no disk"}]


async def test_two_paths_on_one_disk_are_one_too_many(tmp_path: Path) -> None:
    wanted = Limits(
        io=[IoLimit(path=str(path), read_bytes_per_second=1) for path in (tmp_path, tmp_path.parent)]
    )
    if (await terms.ask(Limits(io=wanted.io[:1]), field="limits")).unenforced:
        pytest.skip("the temporary directory is on no disk")
    with pytest.raises(InvalidArgument, match="on the same disk"):
        await terms.ask(wanted, field="limits")


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (None, ""),
        (Limits(nice=19, oom_score_adj=1000), ""),
        (Limits(nice=-1), "nice"),
        (Limits(oom_score_adj=-1), "oom_score_adj"),
        (Limits(rlimits={"nofile": RLimit(soft=10, hard=1000)}), ""),
        (Limits(rlimits={"nofile": RLimit(soft=10, hard=1001)}), "rlimits.nofile"),
        (Limits(rlimits={"nofile": RLimit(soft=10)}), "rlimits.nofile"),
        (Limits(rlimits={"core": RLimit()}), ""),
    ],
)
def test_what_gives_a_job_more_than_the_worker_has(limits: Limits | None, name: str) -> None:
    assert terms.beyond(limits, hard=lambda name: 1000 if name == "nofile" else -1) == name


def test_admins_may_put_a_job_first_and_others_may_not() -> None:
    terms.allow_limits(ROOT, Limits(nice=-5), field="limits")
    with pytest.raises(PermissionDenied, match=r"limits\.nice"):
        terms.allow_limits(ALICE, Limits(nice=-5), field="limits")


DISK = {"path": "/", "device": "8:0", "filesystem": "ext4"}
GOOD: list[dict[str, Any]] = [
    {},
    {"cpus": 1, "memory_bytes": None},
    {"swap_bytes": 0, "nice": -20, "oom_score_adj": -1000},
    {"io": [{**DISK, "read_bytes_per_second": 1}], "cpu_weight": 10_000},
    {"rlimits": {"nofile": [1, None]}},
]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"cpus": 0}, "limits.cpus"),
    ({"cpus": True}, "limits.cpus"),
    ({"memory_bytes": 1.5}, "limits.memory_bytes"),
    ({"swap_bytes": -1}, "limits.swap_bytes"),
    ({"cpu_weight": 10_001}, "limits.cpu_weight"),
    ({"nice": 20}, "limits.nice"),
    ({"io": {}}, "limits.io"),
    ({"io": [{**DISK, "device": "sda"}]}, "limits.io.device"),
    ({"io": [{**DISK, "path": None}]}, "limits.io.path"),
    ({"io": [{**DISK, "reads": 1}]}, "limits.io"),
    ({"io": [{**DISK, "read_bytes_per_second": 0}]}, "limits.io.read_bytes_per_second"),
    ({"io": [DISK, DISK]}, "limits.io"),
    ({"rlimits": {"bogus": [1, 1]}}, "limits.rlimits"),
    ({"rlimits": {"core": 1}}, "limits.rlimits.core"),
    ({"rlimits": {"core": [1]}}, "limits.rlimits.core"),
    ({"rlimits": {"core": [-1, 1]}}, "limits.rlimits.core"),
    ({"bogus": 1}, "limits"),
]


@pytest.mark.parametrize("message", GOOD, ids=str)
def test_limits_that_can_be_tried(message: dict[str, Any]) -> None:
    assert limits({"limits": message}) == {
        name: value for name, value in message.items() if value is not None
    }


@pytest.mark.parametrize(("message", "field"), BAD, ids=str)
def test_limits_of_another_shape_are_refused_by_field(message: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequestError, match=f"field '{field}'"):
        limits({"limits": message})


@pytest.mark.parametrize("message", [{"limits": []}, {}], ids=str)
def test_no_limits_at_all_are_refused(message: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match="field 'limits'"):
        limits(message)


def test_what_can_be_lifted_is_what_cgroups_hold() -> None:
    assert lift({"lift": ["io", "memory_bytes"]}) == ["io", "memory_bytes"]
    for value in ("io", ["nice"], [1], None):
        with pytest.raises(BadRequestError, match="field 'lift'"):
            lift({"lift": value})


def test_reasons_known_before_are_pairs() -> None:
    assert unenforced({}) == []
    assert unenforced({"unenforced": [{"limit": "io", "reason": "x"}]}) == [{"limit": "io", "reason": "x"}]
    wrong: list[Any] = [{}, [1], [{"limit": "io"}]]
    for value in wrong:
        with pytest.raises(BadRequestError, match="field 'unenforced'"):
            unenforced({"unenforced": value})
