"""`jobctl update`, `pause` and `resume`: a running job gets other limits, stands still, and goes on."""

import pytest

from tests.cli.conftest import Jobctl
from tests.harness import probes, programs

MIB = 1024 * 1024
NOFILE = {"nofile": {"soft": 64, "hard": 128}}


@pytest.fixture
def job(jobctl: Jobctl) -> str:
    return jobctl.text(
        "start", "--name", "subject", "--memory", "64M", "--rlimit", "nofile=64:128", "--", *programs.sleep()
    )


@probes.needs_limits
def test_other_limits(jobctl: Jobctl, job: str) -> None:
    assert jobctl.text("update", job, "--memory", "96M", "--pids", "7", "--nice", "5") == ""
    (facts,) = jobctl.json("status", job)
    assert facts["limits_in_force"] == {
        "memory_bytes": 96 * MIB,
        "rlimits": NOFILE,
        "pids": 7,
        "nice": 5,
    }
    assert facts["limits"] == {"memory_bytes": 64 * MIB, "rlimits": NOFILE}
    text = jobctl.text("status", job)
    assert "(limit 96 MiB)" in text
    assert "  each      limit nofile 64 (hard 128), nice 5" in text
    jobctl("stop", job)


@probes.needs_limits
def test_none_lifts_a_limit(jobctl: Jobctl, job: str) -> None:
    (facts,) = jobctl.json("update", job, "--memory", "none", "--cpus", "0.5")
    assert facts["limits_in_force"] == {"cpus": 0.5, "rlimits": NOFILE}
    jobctl("stop", job)


@probes.needs_limits
def test_one_that_cannot_be_had_changes_nothing(jobctl: Jobctl, job: str) -> None:
    done = jobctl("update", job, "--cpus", "0.5", "--io-read", "/proc=1M")
    assert done.returncode == 125
    assert b"stays as it is: io: '/proc': it is in a proc, which is on no disk" in done.stderr
    (facts,) = jobctl.json("update", job, "--cpus", "0.5", "--io-read", "/proc=1M", "--best-effort")
    assert facts["limits_in_force"] == {"memory_bytes": 64 * MIB, "cpus": 0.5, "rlimits": NOFILE}
    assert [entry["limit"] for entry in facts["limits_not_in_force"]] == ["io"]
    assert "  unlimited io: '/proc'" in jobctl.text("status", job)
    jobctl("stop", job)


def test_nothing_to_change_and_nobody_to_change(jobctl: Jobctl) -> None:
    assert jobctl("update", "0199ffff").returncode == 2
    assert jobctl("update", "0199ffff", "--cpus", "1").returncode == 125
    over = jobctl.text("start", "--", "true")
    jobctl("wait", over)
    done = jobctl("update", over, "--nice", "5")
    assert (done.returncode, done.stderr) == (125, f"error: job '{over}' has ended\n".encode())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--io-read", "/data"),
        ("--io-write-ops", "/data=1.5"),
        ("--rlimit", "nofile"),
        ("--rlimit", "nofile=x"),
        ("--nice", "low"),
        ("--cpu-weight", "0"),
        ("--swap", "-1"),
    ],
)
def test_what_is_typed_wrongly_names_its_option(jobctl: Jobctl, option: str, value: str) -> None:
    done = jobctl("start", f"{option}={value}", "--", "true")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {option}: ".encode())


@probes.needs_cgroup2
@probes.needs_root
def test_a_paused_job_says_so_and_goes_on(jobctl: Jobctl, job: str) -> None:
    assert jobctl.text("pause", job, job) == ""
    assert "\tpaused\t" in jobctl.text("list", "--name", "subject", "-n", "1")
    assert ", paused" in jobctl.text("status", job).splitlines()[2]
    (facts,) = jobctl.json("resume", job)
    assert "paused" not in facts
    assert jobctl("pause", job).returncode == 0
    assert jobctl("stop", job).returncode == 0
    (facts,) = jobctl.json("status", job)
    assert (facts["result"]["reason"], facts["result"]["signal"]) == ("stopped", "TERM")
    assert "paused" not in facts
