"""What this host can do for jobs, and for each thing that it cannot, the command or setting that would change it.

Decides what the findings of an examination mean. Pure but for `examine`, which runs one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from jobworker.errors import Unavailable
from jobworker.supervisor.limits import CONTROLLERS, RATES
from jobworker.supervisorprocess import PACKAGE_PARENT

if TYPE_CHECKING:
    from jobworker.supervisor.messages import Examination

DEADLINE_SECONDS = 30.0
NO_SYSTEMD = "as root: mkdir /sys/fs/cgroup/jobworker && chown -R {user} /sys/fs/cgroup/jobworker, and start the worker in there"
UNIT = "put Delegate=yes into the [Service] section of the supervisor's unit"
USER_UNIT = "run it as a unit of yours with Delegate=yes; or " + NO_SYSTEMD
USER_CONTROLLERS = (
    "systemctl edit user@.service, and put Delegate=cpu io memory pids into its [Service] section"
)
ALONE = (
    "start the supervisor in a cgroup that holds no other process: as a unit of its own, with Delegate=yes"
)
TO_V2 = "boot with cgroup v2 alone: kernel options systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all"
KERNEL = "boot a kernel that has it: 5.14 or newer, CONFIG_CGROUPS, and no cgroup_disable="
FIXES = {
    "io_weight": "echo bfq > /sys/block/DISK/queue/scheduler, for the disk in question",
    "swap_bytes": "boot with the kernel option swapaccount=1",
    "nice": "put AmbientCapabilities=CAP_SYS_NICE into the supervisor's unit",
    "oom_score_adj": "leave CAP_SYS_RESOURCE to the supervisor: in a container --cap-add SYS_RESOURCE, in a unit AmbientCapabilities=",
}
LIMITS = (
    *(name for name in CONTROLLERS if name != "io"),
    *(f"io.{rate}" for rate in RATES),
    "nice",
    "oom_score_adj",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing: whether it works, else why not and what would change that."""

    name: str
    works: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """Where the worker would live."""

    kind: str
    place: str
    mode: str
    findings: list[Finding]

    @property
    def is_well(self) -> bool:
        """Whether all of it works."""
        return all(finding.works for finding in self.findings)


def examine(root: str | None) -> Examination:
    """Runs an examination, which leaves nothing behind; Unavailable when it cannot be done."""
    line = [sys.executable, "-S", "-E", "-s", "-m", "jobworker.supervisor.examine", *([root] if root else [])]
    try:
        done = subprocess.run(
            line, cwd=PACKAGE_PARENT, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise Unavailable(f"the host cannot be examined: {said.strip().splitlines()[-1]}") from error
    return cast("Examination", json.loads(done.stdout))


def diagnose(found: Examination, *, root: bool, user: str) -> Host:
    """What it means for a worker of `user`, which is `root` or not."""
    findings = [_tree(found, root=root, user=user)]
    if found["mode"] != "none":
        findings += [_controller(name, found, root=root) for name in dict.fromkeys(CONTROLLERS.values())]
        findings += _limits(found)
    return Host(_kind(found, root=root), found["base"], found["mode"], findings)


def _kind(found: Examination, *, root: bool) -> str:
    if found["mode"] == "none":
        return "no cgroups"
    if not root:
        return "ordinary user, delegated"
    return "root, delegated" if found["delegated"] else "root, plain host"


def _tree(found: Examination, *, root: bool, user: str) -> Finding:
    if found["mode"] == "none":
        if not found["base"]:
            return Finding(
                "tree", False, "no cgroup2 is mounted", "mount -t cgroup2 none /sys/fs/cgroup/unified"
            )
        fix = UNIT if root else USER_UNIT.format(user=user)
        return Finding("tree", False, f"no cgroup can be made in {found['base']}", fix)
    if not found["kills"]:
        return Finding("tree", False, "the kernel cannot kill a cgroup as a whole", KERNEL)
    enters = (
        "born in their cgroup"
        if found["into_cgroup"]
        else "entering their cgroup by themselves, which is slower"
    )
    return Finding("tree", True, f"jobs are contained, paused and killed whole, {enters}")


def _controller(name: str, found: Examination, *, root: bool) -> Finding:
    version = found["controllers"].get(name)
    if version is not None:
        return Finding(name, True, f"on cgroup {version}")
    if name in found["offered"]:
        return Finding(
            name, False, f"{found['base']} holds processes, so it cannot be turned on there", ALONE
        )
    if name in found["mounted_v1"]:
        fix = KERNEL if root else TO_V2
        return Finding(name, False, "it is on cgroup v1, where the worker may not make a cgroup", fix)
    if name in found["offered_at_top"]:
        return Finding(name, False, f"not delegated to {found['base']}", UNIT if root else USER_CONTROLLERS)
    return Finding(name, False, "this kernel does not have it", KERNEL)


def _limits(found: Examination) -> list[Finding]:
    reasons = {entry["limit"]: entry["reason"] for entry in found["unenforced"]}
    return [_limit(name, reasons, found) for name in LIMITS]


def _limit(name: str, reasons: dict[str, str], found: Examination) -> Finding:
    kind = name.partition(".")[0]
    reason = reasons.get(name) or (reasons.get("io") if kind == "io" else None)
    if reason is None:
        return Finding(name, True, "enforced")
    controller = CONTROLLERS.get(kind)
    if controller is not None and controller not in found["controllers"]:
        return Finding(name, False, reason, f"see {controller}")
    is_write = kind == "io" and found["controllers"].get("io") == "v1"
    return Finding(name, False, reason, TO_V2 if is_write else FIXES.get(name, KERNEL))


def current_user() -> tuple[bool, str]:
    """Whether we are root, and who we are."""
    uid = os.geteuid()
    return uid == 0, str(uid)
