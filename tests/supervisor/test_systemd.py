"""The unit files of docs/ under a real systemd, as the first process of a namespace, with no units but ours."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Certificates, probes, processes
from tests.harness.worker import CHECKOUT, jobworker
from tests.supervisor.peer import PATIENCE, Peer

SYSTEMD = Path("/lib/systemd/systemd")
MIB = 1024 * 1024
SUPERVISOR, SERVER = "jobworker-supervisor.service", "jobworker.service"

pytestmark = pytest.mark.skipif(
    not (probes.UML and probes.ROOT and SYSTEMD.exists() and shutil.which("unshare")),
    reason="needs systemd, and a machine of its own to run it on: make test-v2",
)


class Manager:
    """A systemd whose units are those of docs/, with this checkout's programs and a state directory of the test's."""

    def __init__(self, directory: Path, certificates: Certificates) -> None:
        self.state = directory / "state"
        self.log = directory / "systemd.log"
        self._units = directory / "units"
        self._units.mkdir()
        command = " ".join(jobworker())
        for name in (SUPERVISOR, SERVER):
            text = (CHECKOUT / "docs" / name).read_text()
            text = text.replace("/usr/local/bin/jobworker", command).replace(
                "/var/lib/jobworker", str(self.state)
            )
            text = text.replace("/etc/jobworker/server.pem", str(certificates.of("server")))
            text = text.replace("/etc/jobworker/ca.pem", str(certificates.of("ca"))).replace(
                "0.0.0.0:9090", "127.0.0.1:0"
            )
            text = re.sub(r"(?m)^(StateDirectory|Wants=network).*\n", "", text)
            text = text.replace("network-online.target ", "")
            text = text.replace("[Unit]", "[Unit]\nDefaultDependencies=no")
            text = text.replace("[Service]", f"[Service]\nWorkingDirectory={CHECKOUT}")
            (self._units / name).write_text(text)
        (self._units / "nothing.target").write_text("[Unit]\nDefaultDependencies=no\n")
        ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ready.settimeout(PATIENCE)
        ready.bind(str(directory / "ready"))  # systemd tells who contains it, as a service tells systemd
        environment = {
            **os.environ,
            "SYSTEMD_UNIT_PATH": str(self._units),
            "NOTIFY_SOCKET": str(directory / "ready"),
            "container": "test",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", str(SYSTEMD), "--system",
                 "--unit=nothing.target", "--log-target=console", "--show-status=no"],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        while b"READY=1" not in ready.recv(4096):  # it tells other things before
            pass
        ready.close()
        (self._pid,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()

    def control(self, *arguments: str) -> str:
        """What systemctl says."""
        inside = ["nsenter", "--target", self._pid, "--pid", "--mount"]
        done = subprocess.run(
            [*inside, "systemctl", *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        return (done.stdout + done.stderr).strip()

    def end(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)


@pytest.fixture
def manager(directory: Path, certificates: Certificates) -> Iterator[Manager]:
    place = directory / "systemd"
    place.mkdir()
    running = Manager(place, certificates)
    try:
        yield running
    finally:
        running.end()


def test_the_units_start_in_order_limit_jobs_in_their_own_part_and_end(manager: Manager) -> None:
    assert manager.control("start", SERVER) == ""
    assert manager.control("is-active", SUPERVISOR, SERVER).split() == ["active", "active"]
    top = probes.MOUNTS["v2"] / manager.control("show", "--property=ControlGroup", "--value", SUPERVISOR)[1:]
    with Peer(manager.state) as peer:
        cgroup = peer.welcome["cgroup"]
        assert Path(cgroup["root"]).parent == top
        assert cgroup["controllers"] == dict.fromkeys(("cpu", "memory", "pids", "io"), "v2")
        assert (top / "supervisor" / "cgroup.procs").read_text().split()
        limits = {"cpus": 0.5, "memory_bytes": 32 * MIB, "pids": 9}
        assert peer.launch("held", ["sleep", "1000"], limits=limits)["limits"] == limits
        hog = ["sh", "-c", "a=x; while :; do a=$a$a; done"]
        assert peer.run("hog", hog, limits={"memory_bytes": 16 * MIB})["oom_kills"] == 1
        assert manager.control("restart", SERVER) == ""
        assert manager.control("is-active", SUPERVISOR, SERVER).split() == ["active", "active"]
        assert [job["job"] for job in peer.jobs()] == ["held"]
        assert manager.control("reload", SUPERVISOR) == ""
        with pytest.raises(EOFError):
            peer.receive(lambda _: False)
    with Peer(manager.state) as peer:
        assert [job["job"] for job in peer.jobs()] == ["held"]
        assert manager.control("is-active", SUPERVISOR, SERVER).split() == ["active", "active"]
        assert manager.control("stop", SUPERVISOR) == ""
        assert peer.exited("held")["stop_requested"]
    assert processes.leaves_of(manager.state) == []
    assert manager.control("is-active", SUPERVISOR, SERVER).split() == ["inactive", "inactive"]
