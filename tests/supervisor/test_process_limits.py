"""Limits of single processes: in force for the program and what it forks, cgroups or not, and changed for all of them."""

import os
import signal
from pathlib import Path

import pytest

from tests.supervisor.peer import Message, Peer, Supervisor, wait_for_output, wait_until

MIB = 1024 * 1024


def update(peer: Peer, job: str, limits: Message, **how: object) -> Message:
    request = {"op": "update", "job": job, "limits": limits, "lift": [], "best_effort": False}
    return peer.call({**request, "unenforced": [], **how})


def test_the_program_has_them_and_so_has_its_child(supervisor: Supervisor, peer: Peer, job: str) -> None:
    limits = {"rlimits": {"nofile": [100, 200], "core": [0, None]}, "nice": 5, "oom_score_adj": 500}
    script = "ulimit -Sn; ulimit -Hn; ulimit -Sc; cat /proc/self/oom_score_adj; nice"
    launched = peer.launch(job, ["sh", "-c", f"{script}; sh -c '{script}'"], limits=limits)
    assert launched["limits"] == limits
    peer.exited(job)
    assert supervisor.output(job).split() == [b"100", b"200", b"0", b"500", b"5"] * 2


def test_one_that_the_program_runs_into(supervisor: Supervisor, peer: Peer, job: str) -> None:
    script = "trap '' XFSZ; head -c 2000000 /dev/zero > big; wc -c < big"
    scratch = supervisor.state / "scratch-limits"
    record = peer.run(
        job, ["sh", "-c", script], scratch=str(scratch), limits={"rlimits": {"fsize": [MIB, MIB]}}
    )
    assert record["exit_code"] == 0
    assert str(MIB).encode() in supervisor.output(job).split()
    assert b"File too large" in supervisor.output(job)


def test_the_time_of_a_burner(peer: Peer, job: str) -> None:
    record = peer.run(job, ["sh", "-c", "while :; do :; done"], limits={"rlimits": {"cpu": [1, 2]}})
    assert record["signal"] == signal.SIGXCPU
    assert 0.5e6 < record["usage"]["cpu_user_usec"] + record["usage"]["cpu_system_usec"] < 2e6


@pytest.mark.parametrize("name", ["as", "data", "stack"])
def test_little_of_what_the_child_itself_needs_is_no_trouble_for_the_start(
    peer: Peer, job: str, name: str
) -> None:
    launched = peer.launch(job, ["true"], limits={"rlimits": {name: [16 * MIB, 16 * MIB]}})
    assert launched["op"] == "launched", launched
    assert peer.exited(job)["exit_code"] == 0


def test_a_limit_too_small_to_execute_anything_is_a_typed_failure(
    supervisor: Supervisor, peer: Peer, job: str
) -> None:
    words = ["x" * 60_000] * 20
    failed = peer.launch(job, ["echo", *words], limits={"rlimits": {"as": [4096, 4096]}})
    assert (failed["op"], failed["stage"]) == ("failed", "limit"), failed
    assert os.listdir(supervisor.job_directory(job)) == ["exit"]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"rlimits": {"nofile": [200, 100]}}, "rlimits.nofile: "),
        ({"rlimits": {"nofile": [None, None]}}, "rlimits.nofile: the worker may not raise"),
    ],
    ids=str,
)
def test_one_that_the_kernel_refuses_fails_the_start(
    supervisor: Supervisor, peer: Peer, job: str, limits: Message, words: str
) -> None:
    failed = peer.launch(job, ["true"], limits=limits)
    assert (failed["op"], failed["stage"]) == ("failed", "limit"), failed
    assert failed["detail"].startswith(words)
    assert os.listdir(supervisor.job_directory(job)) == ["exit"]
    launched = peer.launch(job + "-b", ["true"], limits={**limits, "nice": 3}, best_effort=True)
    assert launched["limits"] == {"nice": 3}
    assert [entry["limit"] for entry in launched["unenforced"]] == ["rlimits.nofile"]
    peer.exited(job + "-b")


def test_an_update_reaches_every_process_and_thread(supervisor: Supervisor, peer: Peer, job: str) -> None:
    if peer.welcome["cgroup"]["mode"] == "none":
        pytest.skip("without cgroups, which processes a job has is not known")
    peer.launch(job, ["sh", "-c", "for n in 1 2 3; do setsid sleep 1000 & echo $!; done; echo $$; wait"])
    log = supervisor.job_directory(job) / "output.log"
    pids = [int(word) for word in wait_until(log, lambda content: content.count(b"\n") == 4).split()]
    updated = update(peer, job, {"nice": 7, "oom_score_adj": 300, "rlimits": {"nofile": [64, 64]}})
    assert updated["limits"] == {"nice": 7, "oom_score_adj": 300, "rlimits": {"nofile": [64, 64]}}
    for pid in pids:
        assert os.getpriority(os.PRIO_PROCESS, pid) == 7
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "300\n"
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert next(line for line in limits.splitlines() if "open files" in line).split()[3:5] == ["64", "64"]
    peer.stop(job)
    peer.exited(job)


def test_an_update_that_fails_halfway_is_taken_back(supervisor: Supervisor, peer: Peer, job: str) -> None:
    if peer.welcome["cgroup"]["mode"] == "none":
        pytest.skip("without cgroups, which processes a job has is not known")
    launched = peer.launch(job, ["sh", "-c", "echo up; sleep 1000"], limits={"nice": 2})
    wait_for_output(supervisor.job_directory(job) / "output.log", b"up\n")
    refused = update(peer, job, {"nice": 7, "rlimits": {"core": [0, 0], "nofile": [9, 8]}})
    assert (refused["op"], refused["error"]) == ("error", "limit")
    assert refused["detail"].startswith("rlimits.nofile: ")
    assert os.getpriority(os.PRIO_PROCESS, launched["pid"]) == 2
    assert peer.jobs()[0]["limits"] == {"nice": 2}
    peer.stop(job)
    peer.exited(job)
