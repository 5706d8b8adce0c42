"""`jobctl status`: all that is known of a job."""

import json
import re
from collections.abc import Callable

from tests.cli.conftest import Jobctl
from tests.harness import probes, programs


def test_of_a_running_job(jobctl: Jobctl) -> None:
    job = jobctl.text(
        "start", "--name", "look", "--label", "ci=42", "--workdir", "/usr", "--", *programs.ready_then_sleep()
    )
    process = jobctl.begin("logs", "-f", job)
    assert process.stdout is not None
    process.stdout.readline()
    lines = jobctl.text("status", "look").splitlines()
    assert lines[0] == f"look ({job}), owner alice, label ci=42"
    assert re.fullmatch(
        r"  command   /bin/sh -c 'echo ready; exec sleep 3600' sh  in /usr( as uid \d+)?", lines[1]
    )
    assert re.fullmatch(r"  state     running for [\d.]+ s", lines[2])
    assert re.fullmatch(r"  output    6 B, kept whole( \(cap .*\))?", lines[-1])
    jobctl("stop", job)


def test_of_one_that_ended(jobctl: Jobctl) -> None:
    jobctl("run", "--name", "over", "--", *programs.fail(3))
    text = jobctl.text("get", "over")
    assert re.search(r"  state     ended [\d.]+ s ago after [\d.]+ s: exited with code 3\n", text)
    assert "output    none" in text


@probes.needs_limits
def test_limits_are_shown_beside_use(jobctl: Jobctl) -> None:
    jobctl("run", "--name", "limited", "--memory", "64M", "--cpus", "1.5", "--pids", "9", "--", "true")
    text = jobctl.text("status", "limited")
    assert "(limit 64 MiB)" in text
    assert "limit 1.5 cores" in text
    assert "limit 9" in text


@probes.needs_limits
def test_out_of_memory(jobctl: Jobctl) -> None:
    hog = programs.sh("a=x; while :; do a=$a$a$a; done")
    done = jobctl("run", "--name", "hog", "--memory", "16M", "--", *hog)
    assert done.returncode == 137
    assert b"out of memory" in done.stderr
    assert "out of memory" in jobctl.text("status", "hog")
    (record,) = jobctl.json("status", "hog")
    assert record["result"]["reason"] == "oom_killed"
    assert record["result"]["oom_kills"] >= 1


def test_for_programs(jobctl: Jobctl) -> None:
    jobctl("run", "--name", "facts", "--", *programs.say(out="x", exit_code=3))
    (record,) = jobctl.json("status", "facts")
    assert record["state"] == "ended"
    assert record["result"] == {"reason": "exited", "exit_code": 3, "exit_status": 3}
    assert record["argv"][0] == "/bin/sh"
    cap = record["output"].pop("cap")
    assert record["output"] == {"size": 1, "head": 0, "dropped": 0}
    assert (cap["keep"], type(cap["max_bytes"])) == ("newest", int)
    for moment in ("created_at", "started_at", "ended_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", record[moment])


def test_a_job_that_is_not_there(jobctl: Jobctl) -> None:
    done = jobctl("status", "0199ffff")
    assert done.returncode == 125
    assert done.stderr == b"error: no job '0199ffff'\nhint: jobctl list shows your jobs\n"
    done = jobctl("status", "0199ffff", "-o", "json")
    error = json.loads(done.stderr)["error"]
    assert (error["kind"], error["message"]) == ("job_not_found", "no job '0199ffff'")
    unknown = "0199f0c2-0000-7000-8000-000000000000"
    assert jobctl("status", unknown).stderr.startswith(f"error: no job '{unknown}'\n".encode())


def test_another_clients_job(jobctl: Jobctl, as_client: Callable[[str], Jobctl]) -> None:
    job = jobctl.text("start", "--name", "secret", "--", "true")
    bob = as_client("bob")
    assert bob("status", job).returncode == 125
    assert bob("status", "secret").stderr.startswith(b"error: no job 'secret'\n")
    assert as_client("root")("status", job).returncode == 0


def test_by_the_beginning_of_the_id(jobctl: Jobctl) -> None:
    jobs = [jobctl.text("start", "--", "true") for _ in range(2)]
    assert jobctl.text("status", jobs[0][:-2]).startswith(jobs[0])
    done = jobctl("status", jobs[0][:3])
    assert done.returncode == 125
    first, second = done.stderr.decode().splitlines()
    assert first == f"error: several jobs' ids begin with '{jobs[0][:3]}'"
    assert second.startswith("hint: one of ")
    done = jobctl("status", jobs[0][:3], "-o", "json")
    assert json.loads(done.stderr)["error"]["kind"] == "ambiguous_job"
    assert set(jobs) & set(json.loads(done.stderr)["error"]["candidates"])
