"""What the findings on a host mean: which kind of host it is, and what would change each thing that does not work."""

from typing import Any

import pytest

from jobworker.doctor import LIMITS, diagnose
from jobworker.supervisor.messages import Examination

ALL = {"cpu": "v2", "memory": "v2", "pids": "v2", "io": "v2"}
GOOD: Examination = {
    "mode": "v2",
    "base": "/sys/fs/cgroup",
    "delegated": False,
    "controllers": ALL,
    "into_cgroup": True,
    "kills": True,
    "offered": list(ALL),
    "offered_at_top": list(ALL),
    "mounted_v1": [],
    "unenforced": [],
}


def fixes(found: dict[str, Any], *, root: bool = True) -> dict[str, str]:
    host = diagnose({**GOOD, **found}, root=root, user="1000")  # type: ignore[typeddict-item]  # its keys
    assert host.is_well == all(finding.works for finding in host.findings)
    assert all(finding.fix for finding in host.findings if not finding.works)
    return {finding.name: finding.fix for finding in host.findings if not finding.works}


@pytest.mark.parametrize(
    ("found", "root", "kind"),
    [
        ({}, True, "root, plain host"),
        ({"delegated": True}, True, "root, delegated"),
        ({}, False, "ordinary user, delegated"),
        ({"mode": "none", "base": ""}, True, "no cgroups"),
    ],
)
def test_the_kind_of_host(found: dict[str, Any], root: bool, kind: str) -> None:
    assert diagnose({**GOOD, **found}, root=root, user="0").kind == kind  # type: ignore[typeddict-item]  # its keys


def test_a_host_on_which_all_works_has_nothing_to_fix() -> None:
    assert fixes({}) == {}
    assert fixes({}, root=False) == {}


def test_every_limit_is_told() -> None:
    names = [finding.name for finding in diagnose(GOOD, root=True, user="0").findings]
    assert set(LIMITS) <= set(names)
    assert set(ALL) <= set(names)


def test_no_tree() -> None:
    assert fixes({"mode": "none", "base": ""})["tree"].startswith("mount -t cgroup2")
    assert "chown -R 1000" in fixes({"mode": "none"}, root=False)["tree"]
    assert "Delegate=yes" in fixes({"mode": "none"})["tree"]
    assert "5.14" in fixes({"kills": False})["tree"]


@pytest.mark.parametrize(
    ("found", "root", "words"),
    [
        ({}, True, "holds no other process"),
        ({"offered": []}, False, "systemctl edit user@.service"),
        ({"offered": []}, True, "Delegate=yes"),
        ({"offered": [], "offered_at_top": [], "mounted_v1": list(ALL)}, False, "boot with cgroup v2"),
        ({"offered": [], "offered_at_top": []}, True, "boot a kernel"),
    ],
)
def test_a_controller_that_cannot_be_used(found: dict[str, Any], root: bool, words: str) -> None:
    lost = {"limit": "memory_bytes", "reason": "no memory controller"}
    left = {name: version for name, version in ALL.items() if name != "memory"}
    told = fixes({"controllers": left, "unenforced": [lost], **found}, root=root)
    assert words in told["memory"]
    assert told["memory_bytes"] == "see memory"


@pytest.mark.parametrize(
    ("limit", "version", "words"),
    [
        ("io_weight", "v2", "bfq"),
        ("io.write_bytes_per_second", "v1", "boot with cgroup v2"),
        ("nice", "v2", "CAP_SYS_NICE"),
        ("oom_score_adj", "v2", "CAP_SYS_RESOURCE"),
        ("swap_bytes", "v1", "swapaccount=1"),
    ],
)
def test_a_limit_that_cannot_be_enforced(limit: str, version: str, words: str) -> None:
    told = fixes(
        {"controllers": dict.fromkeys(ALL, version), "unenforced": [{"limit": limit, "reason": "why"}]}
    )
    assert list(told) == [limit]
    assert words in told[limit]
