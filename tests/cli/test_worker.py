"""`jobctl worker`: what it is, and who we are to it."""

import os
import platform

from jobwire import __version__
from tests.cli.conftest import Jobctl


def test_for_people(jobctl: Jobctl) -> None:
    first, *rest = jobctl.text("worker").splitlines()
    assert first.startswith(f"{platform.node()} on 127.0.0.1:")
    assert f"jobworker {__version__}, Linux {platform.release()}" in first
    assert rest[-1] == "  you       alice, operator"


def test_it_says_which_limits_it_refuses(jobctl: Jobctl) -> None:
    (facts,) = jobctl.json("worker")
    told = [f"  refuses   {entry['limit']}: {entry['reason']}" for entry in facts["limits_not_enforced"]]
    assert [line for line in jobctl.text("worker").splitlines() if line.startswith("  refuses")] == told


def test_for_programs(jobctl: Jobctl) -> None:
    (facts,) = jobctl.json("worker")
    assert (facts["version"], facts["client_id"], facts["role"]) == (__version__, "alice", "operator")
    assert facts["cgroup_mode"] in ("v2", "hybrid", "none")
    os.kill(facts["supervisor_pid"], 0)


def test_options_before_the_verb(jobctl: Jobctl) -> None:
    assert jobctl("-o", "json", "worker").stdout.startswith(b'{"version": ')
    assert jobctl("--address", "127.0.0.1:1", "worker").returncode == 125


def test_version_and_help(jobctl: Jobctl) -> None:
    assert jobctl.text("--version") == f"jobctl {__version__}"
    for arguments in ([], ["--help"], ["run", "--help"], ["context", "--help"], ["client", "add", "--help"]):
        done = jobctl(*arguments)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"Usage: jobctl" in done.stdout
