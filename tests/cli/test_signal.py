"""`jobctl signal`: any signal, to the main process or to all."""

from tests.cli.conftest import Jobctl, read_until
from tests.harness import programs

TRAP = "trap 'echo %s; exit 7' USR1; %s echo ready; while :; do sleep 0.05; done"


def test_to_the_main_process(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--", *programs.sh(TRAP % ("main", "")))
    process = jobctl.begin("logs", "-f", job)
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"ready\n")
    assert jobctl.text("signal", job, "USR1") == ""
    assert process.stdout.read() == b"main\n"
    assert jobctl("wait", job).returncode == 7


def test_to_the_tree(jobctl: Jobctl) -> None:
    child = "sh -c \"trap 'echo child; exit' USR1; echo up; while :; do sleep 0.05; done\" &"
    script = TRAP % ("main; wait", child)  # without cgroups the job ends with its main process
    job = jobctl.text("start", "--wait-for-tree", "--", *programs.sh(script))
    process = jobctl.begin("logs", "-f", job)
    assert process.stdout is not None
    seen = read_until(process.stdout.fileno(), b"ready\n")
    if b"up\n" not in seen:
        read_until(process.stdout.fileno(), b"up\n")
    (told,) = jobctl.json("signal", "--tree", job, "10")
    assert told == {"id": job, "signal": "USR1", "tree": True}
    assert sorted(process.stdout.read().split()) == [b"child", b"main"]


def test_what_cannot_be_signalled(jobctl: Jobctl) -> None:
    job = jobctl.text("start", "--", "true")
    jobctl("wait", job)
    assert jobctl("signal", job, "TERM").returncode == 125
    assert jobctl("signal", job, "NOPE").returncode == 2
    assert jobctl("signal", "no-such-job", "TERM").returncode == 125
    assert jobctl("signal", job).returncode == 2
