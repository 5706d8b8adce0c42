"""`jobworker serve` as a process: address, signals, draining, certificates that change while it runs."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from generated.jobworker.v1 import (
    EndReason,
    GetWorkerRequest,
    JobSpec,
    JobState,
    RunJobRequest,
    StreamOutputRequest,
    WaitJobRequest,
)
from tests.harness import Certificates, Worker, processes, programs
from tests.harness.worker import CHECKOUT, clean_environment, jobworker, running
from tests.service.client import (
    PATIENCE,
    Client,
    as_refusal,
    connected,
    refusal,
    tls,
    transport_of,
    until_said,
)

MakeWorker = Callable[..., Worker]


def serve(worker: Worker, **options: object) -> "subprocess.CompletedProcess[str]":
    """Runs a server that is expected not to come up."""
    certificates = worker.certificates
    given = {"cert": certificates.of("server"), "client_ca": certificates.authority, **options}
    command = jobworker("serve")
    for name, value in given.items():
        command += ["--" + name.replace("_", "-"), str(value)]
    return subprocess.run(
        command, cwd=CHECKOUT, env=clean_environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )  # fmt: skip


def complaint(done: "subprocess.CompletedProcess[str]") -> str:
    """The two lines of an error, and nothing else."""
    assert done.returncode != 0
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["error", "hint"][: len(lines)], done.stderr
    return done.stderr


def test_the_ready_line_tells_the_real_port_and_what_there_is(make_worker: MakeWorker) -> None:
    worker = make_worker()
    line = next(line for line in worker.log if "serving on" in line)
    assert line.startswith(f"jobworker 0.1.0 serving on {worker.address}, state {worker.state}, cgroups: ")
    assert not worker.address.endswith(":0")


def test_a_port_that_is_taken(worker: Worker, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        said = complaint(serve(worker, state=tmp_path / "state", listen=listen))
    assert f"cannot listen on {listen}: address already in use" in said
    assert not (tmp_path / "state").exists()


def test_a_host_that_is_not_ours(worker: Worker, tmp_path: Path) -> None:
    said = complaint(serve(worker, state=tmp_path / "state", listen="192.0.2.1:9090"))
    assert "cannot listen on 192.0.2.1:9090" in said


def test_a_second_server_on_the_same_state(worker: Worker) -> None:
    said = complaint(serve(worker, state=worker.state, listen="127.0.0.1:0"))
    assert "another worker" in said


def test_a_certificate_that_is_not_there(worker: Worker, tmp_path: Path) -> None:
    missing = str(tmp_path / "no.pem")
    said = complaint(serve(worker, state=tmp_path / "s", cert=missing))
    assert f"cannot use certificate '{missing}'" in said


def test_a_certificate_without_its_key(worker: Worker, tmp_path: Path) -> None:
    bare = str(worker.certificates.authority)
    said = complaint(serve(worker, state=tmp_path / "s", cert=bare))
    assert f"cannot use certificate '{bare}': no private key in it" in said


async def test_sigterm_ends_followers_with_an_invitation_and_leaves_jobs_running(
    make_worker: MakeWorker,
) -> None:
    worker = make_worker()
    async with connected(worker) as alice:
        job = await alice.start(*programs.ready_then_sleep())
        await until_said(alice, job.job_id, b"ready")
        follow = StreamOutputRequest(job_id=job.job_id, follow=True)
        responses = alice.jobs.stream_output(follow, timeout=PATIENCE)
        await anext(responses)
        waiting = asyncio.ensure_future(alice.jobs.wait_job(WaitJobRequest(job_id=job.job_id)))
        await alice.worker.get_worker(GetWorkerRequest())
        stopping = asyncio.to_thread(worker.terminate)
        ended = asyncio.ensure_future(stopping)
        with pytest.raises(GRPCError) as told:
            await anext(responses)
        refused = as_refusal(told.value)
        assert refused.status is Status.UNAVAILABLE
        assert "resume" in refused.detail.hint
        assert (await refusal(waiting)).status is Status.UNAVAILABLE
        assert await ended == 0
    assert job.pid is not None
    assert processes.alive(job.pid)
    worker.start()
    async with connected(worker) as alice:
        assert (await alice.get(job.job_id)).state == JobState.RUNNING


async def test_jobs_are_stopped_first_where_the_worker_is_told_to(make_worker: MakeWorker) -> None:
    worker = make_worker("--stop-jobs")
    async with connected(worker) as alice:
        polite = await alice.start("/bin/sleep", "1000")
        script = "trap '' TERM; echo up; while :; do sleep 1000; done"
        stubborn = await alice.start("/bin/sh", "-c", script, stop_grace=timedelta(milliseconds=200))
        await until_said(alice, stubborn.job_id, b"up")
        waiting = asyncio.ensure_future(alice.wait(stubborn.job_id))
        await asyncio.sleep(0)
        await alice.worker.get_worker(GetWorkerRequest())  # answered after the request before it was taken in
        assert await asyncio.to_thread(worker.terminate) == 0
        killed = (await waiting).termination
    assert killed is not None
    assert (killed.reason, killed.signal) == (EndReason.STOPPED, signal.SIGKILL)
    assert killed.stopped_by is None
    assert worker.supervisor_pid is None
    worker.start()
    async with connected(worker) as alice:
        stopped = (await alice.get(polite.job_id)).termination
    assert stopped is not None
    assert (stopped.reason, stopped.signal) == (EndReason.STOPPED, signal.SIGTERM)


async def test_an_idle_supervisor_goes_with_the_server(make_worker: MakeWorker) -> None:
    worker = make_worker()
    supervisor = worker.supervisor_pid
    assert supervisor is not None
    assert await asyncio.to_thread(worker.terminate) == 0
    assert processes.wait_gone(supervisor, seconds=PATIENCE)


async def test_a_follower_that_takes_nothing_does_not_hold_the_shutdown_back(make_worker: MakeWorker) -> None:
    worker = make_worker("--drain-seconds", "25")
    async with connected(worker) as alice:
        request = RunJobRequest(spec=JobSpec(argv=programs.write_bytes(100_000_000)))
        responses = alice.jobs.run_job(request, timeout=PATIENCE)
        await anext(responses)
        transport_of(alice.channel).pause_reading()
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await asyncio.to_thread(worker.terminate) == 0
        assert loop.time() - began < 20


async def test_certificates_are_read_again_on_sighup(
    certificates: Certificates, registered: Path, tmp_path: Path
) -> None:
    own = Certificates(tmp_path / "certificates")
    shutil.copytree(certificates.directory, own.directory)
    with running(Worker(own, like=registered)) as worker:
        async with connected(worker) as before:
            await before.worker.get_worker(GetWorkerRequest())
            shutil.copy(certificates.other.of("server"), own.of("server"))
            os.kill(worker.pid, signal.SIGHUP)
            await said(worker, "certificates read again")
            await before.worker.get_worker(GetWorkerRequest())
        context = tls(own.of("alice"), certificates.other.authority)
        after = Client(worker, context=context)
        await after.worker.get_worker(GetWorkerRequest())
        await after.close()

        own.of("server").write_text("no certificate")
        os.kill(worker.pid, signal.SIGHUP)
        await said(worker, "going on with the certificates as they were")
        again = Client(worker, context=context)
        await again.worker.get_worker(GetWorkerRequest())
        await again.close()


async def test_an_authority_that_was_taken_out_is_no_longer_trusted(
    certificates: Certificates, registered: Path, tmp_path: Path
) -> None:
    own = Certificates(tmp_path / "certificates")
    shutil.copytree(certificates.directory, own.directory)
    with running(Worker(own, like=registered)) as worker:
        shutil.copy(certificates.other.authority, own.authority)
        os.kill(worker.pid, signal.SIGHUP)
        await said(worker, "certificates read again")
        old = Client(worker, context=tls(certificates.of("alice"), certificates.authority))
        with pytest.raises((OSError, Exception)):
            await old.worker.get_worker(GetWorkerRequest(), timeout=PATIENCE)
        await old.close()


async def said(worker: Worker, words: str) -> None:
    """Returns once the server has printed these words."""
    async with asyncio.timeout(PATIENCE):
        while not any(words in line for line in worker.log):  # noqa: ASYNC110 - a thread fills the log
            await asyncio.sleep(0.01)
