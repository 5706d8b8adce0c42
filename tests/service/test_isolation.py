"""One client's jobs against the worker and against another client's jobs: run as root, uids keep them apart."""

import shlex

from generated.jobworker.v1 import EndReason, SignalJobRequest
from tests.harness import Worker, programs
from tests.harness.probes import needs_root
from tests.service.client import Client, until_said

pytestmark = needs_root


async def tries(client: Client, script: str) -> list[str]:
    """Runs a script of commands that each say "reached" or "refused"."""
    run = await client.run(*programs.sh(script))
    return run.out.decode().split()


def attempt(command: str) -> str:
    return f"if {command} >/dev/null 2>&1; then echo reached; else echo refused; fi\n"


async def test_the_state_directory_is_closed_to_jobs(worker: Worker, alice: Client) -> None:
    own = await alice.start(*programs.sleep())
    state, job = (shlex.quote(str(path)) for path in (worker.state, worker.job_directory(own.job_id)))
    commands = [
        f"ls {state}",
        f"touch {state}/x",
        f"cat {state}/jobs.db",
        f"cat {state}/supervisor.log",
        f"ls {state}/jobs",
        f"cat {job}/output.log",
        f"sh -c 'echo x >> {job}/output.log'",
        f"rm -rf {job}/output.idx && ! test -e {job}",
        f"ls {state}/scratch",
    ]
    assert await tries(alice, "".join(map(attempt, commands))) == ["refused"] * len(commands)
    await alice.jobs.signal_job(SignalJobRequest(job_id=own.job_id, signal=9))
    await alice.wait(own.job_id)


async def test_another_clients_job_cannot_be_signalled_traced_or_entered(alice: Client, bob: Client) -> None:
    victim = await alice.start(*programs.sh("echo secret > note; echo ready; exec sleep 600"))
    await until_said(alice, victim.job_id, b"ready")
    scratch = shlex.quote(victim.workdir)
    commands = [
        f"kill -0 {victim.pid}",
        f"kill -9 {victim.pid}",
        f"cat /proc/{victim.pid}/environ",
        f"ls /proc/{victim.pid}/cwd/",
        f"cat {scratch}/note",
        f"touch {scratch}/x",
    ]
    assert await tries(bob, "".join(map(attempt, commands))) == ["refused"] * len(commands)
    assert await tries(alice, attempt(f"kill -0 {victim.pid}")) == ["reached"]
    await alice.jobs.signal_job(SignalJobRequest(job_id=victim.job_id, signal=15))
    ended = await alice.wait(victim.job_id)
    assert ended.termination is not None
    assert ended.termination.reason == EndReason.SIGNALED


async def test_a_job_has_no_privileges_and_gains_none(alice: Client) -> None:
    run = await alice.run(*programs.sh("grep NoNewPrivs /proc/self/status; id -u; id -G"))
    said = run.out.decode().split()
    assert said[:2] == ["NoNewPrivs:", "1"]
    assert said[2] == said[3] != "0"
