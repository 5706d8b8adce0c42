"""Whether any disk of this host shares out its time by weight: else a weight would be taken and mean nothing.

Decides from the schedulers and the cost model that are in use now. Sources: Documentation/admin-guide/cgroup-v2.rst
("IO Interface Files"), Documentation/block/bfq-iosched.rst.
"""

from __future__ import annotations

import contextlib
import os

_NOT_HERE = "no disk shares its time by weight: it takes the bfq scheduler, or io.cost.qos with enable=1"


def why_not(*, block: str = "/sys/block", cgroup_top: str = "/sys/fs/cgroup") -> str:
    """Why a weight means nothing here; "" when it does."""
    for name in os.listdir(block):
        with contextlib.suppress(OSError), open(f"{block}/{name}/queue/scheduler", encoding="ascii") as file:
            if "[bfq]" in file.read():
                return ""
    with contextlib.suppress(OSError), open(f"{cgroup_top}/io.cost.qos", encoding="ascii") as file:
        if "enable=1" in file.read():
            return ""
    return _NOT_HERE
