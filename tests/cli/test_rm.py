"""`jobctl rm`: forget jobs that have ended."""

from tests.cli.conftest import Jobctl
from tests.harness import Worker, programs


def test_a_job_and_its_output_are_gone(jobctl: Jobctl, worker: Worker) -> None:
    job = jobctl.text("start", "--", *programs.say(out="x"))
    jobctl("wait", job)
    assert jobctl.json("rm", job) == [{"id": job, "deleted": True}]
    assert jobctl("status", job).returncode == 125
    assert not worker.job_directory(job).exists()


def test_several_by_name_and_id(jobctl: Jobctl) -> None:
    jobs = [jobctl.text("start", "--name", "bulk", "--", "true") for _ in range(3)]
    for job in jobs:
        jobctl("wait", job)
    assert jobctl.text("delete", *jobctl.text("list", "-q", "--name", "bulk").split()) == ""
    assert jobctl.text("list", "-q", "--name", "bulk") == ""


def test_a_running_one_stays(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--", *programs.sleep())
    done = jobctl("rm", job)
    assert done.returncode == 125
    assert done.stderr.startswith(b"error: ")
    assert jobctl.json("status", job)[0]["state"] == "running"
    jobctl("stop", job)
