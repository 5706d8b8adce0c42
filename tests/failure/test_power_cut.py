"""The plug of the whole machine is pulled, and what was acknowledged is there when it comes up again."""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Certificates
from tests.harness.outage import LINES

CHECKOUT = Path(__file__).parents[2]
PATIENCE = 120.0  # seconds; a process start takes 30 times as long in there
OUTPUT = "".join(f"{number}\n" for number in range(1, LINES + 1))

pytestmark = pytest.mark.skipif(
    not (shutil.which("linux.uml") and shutil.which("mke2fs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")),
    reason="needs a machine whose plug can be pulled: the packages user-mode-linux, kmod and e2fsprogs",
)


async def on_machine(image: Path, what: str, certificates: Certificates, *, pull: bool) -> dict[str, Any]:
    """What the machine on this disk says, and then its plug is pulled, or it ends by itself."""
    command = [sys.executable, "-m", "tests.harness.outage", what, str(certificates.directory)]
    machine = await asyncio.create_subprocess_exec(
        str(CHECKOUT / "scripts/cgroup2-vm"), "-i", str(image), *command,
        cwd=CHECKOUT, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, limit=1 << 20,
    )  # fmt: skip
    assert machine.stdout is not None
    try:
        told = await asyncio.wait_for(machine.stdout.readline(), PATIENCE)
    finally:
        if pull or not told:
            machine.terminate()
        status = await asyncio.wait_for(machine.wait(), PATIENCE)
    assert told, f"the machine said nothing and ended with {status}"
    assert pull or status == 0
    return dict(json.loads(told))


async def test_what_was_acknowledged_outlives_the_power(tmp_path: Path, certificates: Certificates) -> None:
    image = tmp_path / "disk"
    told = await on_machine(image, "begin", certificates, pull=True)
    found = await on_machine(image, "look", certificates, pull=False)
    assert found.keys() == told.keys()
    for job_id, exit_code in told.items():
        reason, now, output = found[job_id]
        if exit_code is None:
            assert (reason, now) == ("LOST", None)
            assert output in ("", "here\n")
        else:
            assert (reason, now, output) == ("EXITED", exit_code, OUTPUT), job_id
