"""The one door: roles by verb on the wire, what the audit remembers, and that nothing can be left out."""

import asyncio
import contextlib
import gc
import sqlite3
import uuid
import weakref
from typing import Any

import pytest
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from generated.jobworker import v1
from generated.jobworker.v1 import (
    DeleteJobRequest,
    GetJobRequest,
    JobServiceBase,
    ListJobsRequest,
    SignalJobRequest,
    StopJobRequest,
)
from jobworker import policy
from jobworker.errors import Unauthenticated
from jobworker.identity import Identity
from jobworker.rpc.calls import OpenCalls
from jobworker.rpc.guard import Guard
from tests.harness import Worker, programs
from tests.harness.certificates import CLIENTS
from tests.service.client import PATIENCE, Client, collect, connected, raw_channel, refusal, transport_of

VERBS = [
    (service, verb)
    for service, verbs in {
        "jobs": ["start_job", "run_job", "stop_job", "signal_job", "pause_job", "resume_job", "update_job", "get_job", "list_jobs", "wait_job", "stream_output", "delete_job"],
        "clients": ["register_client", "list_clients", "revoke_client"],
        "worker": ["get_worker"],
    }.items()
    for verb in verbs
]  # fmt: skip


def camel(verb: str) -> str:
    return "".join(word.title() for word in verb.split("_"))


async def outcome(client: Client, service: str, verb: str) -> Status:
    """What an empty request of this verb is answered with."""
    method: Any = getattr(getattr(client, service), verb)
    request: Any = getattr(v1, camel(verb) + "Request")()
    call = method(request, timeout=PATIENCE)
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except GRPCError as error:
        return error.status
    return Status.OK


@pytest.mark.parametrize("name", CLIENTS)
async def test_each_role_has_the_verbs_of_the_table_and_no_other(worker: Worker, name: str) -> None:
    role = v1.Role.from_string(CLIENTS[name].upper())
    async with connected(worker, name) as client:
        for service, verb in VERBS:
            denied = await outcome(client, service, verb) is Status.PERMISSION_DENIED
            assert denied != policy.may(role, camel(verb)), verb


def test_every_verb_of_the_table_is_tested() -> None:
    assert {camel(verb) for _, verb in VERBS} == policy.VERBS.keys()


def test_a_method_that_nobody_handles_keeps_the_door_from_being_built() -> None:
    nothing: Any = None
    guard = Guard(identity=Identity(nothing), calls=OpenCalls(), audit=nothing, max_request=1, patience=None)
    with pytest.raises(StopIteration):
        guard.service(JobServiceBase(), object())


class Caller:
    """A stream whose peer nobody knows."""

    @property
    def peer(self) -> Any:
        raise Unauthenticated("nobody we know")


async def test_a_refusal_does_not_keep_what_its_call_had_in_hand() -> None:
    """It would until the garbage is collected one day, and that may be much."""
    nothing: Any = None
    guard = Guard(identity=Identity(nothing), calls=OpenCalls(), audit=nothing, max_request=1, patience=None)
    unknown: Any = guard.every({}).get("/no.Such/Method")
    stream = Caller()
    seen = weakref.ref(stream)
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(GRPCError):
            await unknown.func(stream)
        del stream
        assert seen() is None
    finally:
        gc.enable()


# -- audit


def audited(worker: Worker, job_id: str) -> list[tuple[str, str, str, str]]:
    """Client, verb, decision and result of the rows about a job, oldest first."""
    database = sqlite3.connect(f"file:{worker.state / 'jobs.db'}?mode=ro", uri=True)
    try:
        sql = "SELECT client, verb, decision, result FROM audit WHERE job = ? ORDER BY id"
        return database.execute(sql, (job_id,)).fetchall()
    finally:
        database.close()


async def test_who_changed_what_is_written_down(
    worker: Worker, alice: Client, bob: Client, carol: Client
) -> None:
    job = await alice.start(*programs.sleep())
    await alice.get(job.job_id)
    await refusal(bob.jobs.stop_job(StopJobRequest(job_id=job.job_id)))
    await refusal(carol.jobs.delete_job(DeleteJobRequest(job_id=job.job_id)))
    await refusal(alice.jobs.delete_job(DeleteJobRequest(job_id=job.job_id)))
    await alice.jobs.signal_job(SignalJobRequest(job_id=job.job_id, signal=9))
    await alice.wait(job.job_id)
    await alice.stop(job.job_id)
    await alice.jobs.delete_job(DeleteJobRequest(job_id=job.job_id))
    await alice.jobs.list_jobs(ListJobsRequest())  # what was written behind is there by now
    assert audited(worker, job.job_id) == [
        ("alice", "StartJob", "allowed", "ok"),
        ("bob", "StopJob", "allowed", "not_found"),
        ("alice", "DeleteJob", "allowed", "failed_precondition"),
        ("alice", "SignalJob", "allowed", "ok"),
        ("alice", "StopJob", "allowed", "ok"),
        ("alice", "DeleteJob", "allowed", "ok"),
    ]
    assert ("carol", "DeleteJob", "denied", "permission_denied") in audited(worker, "")


async def test_who_has_left_is_written_down_with_its_address(worker: Worker) -> None:
    database = sqlite3.connect(f"file:{worker.state / 'jobs.db'}?mode=ro", uri=True)
    with contextlib.closing(database):
        before = database.execute("SELECT max(id) FROM audit").fetchone()[0] or 0
        async with raw_channel(worker, "alice") as channel:
            path = "/jobworker.v1.JobService/StartJob"
            async with channel.request(path, Cardinality.UNARY_UNARY, bytes, bytes) as stream:
                await stream.send_request()
                transport = transport_of(channel)
                host, port = transport.get_extra_info("sockname")
                async with connected(worker) as alice:
                    await alice.jobs.list_jobs(ListJobsRequest())  # by then the server knows of the call
                    transport.abort()
                    sql = "SELECT peer, result FROM audit WHERE id > ?"
                    async with asyncio.timeout(PATIENCE):
                        while not (rows := database.execute(sql, (before,)).fetchall()):
                            await alice.jobs.list_jobs(ListJobsRequest())
    assert rows == [(f"{host}:{port}", "cancelled")]


async def test_a_run_is_written_down_when_it_begins(worker: Worker, alice: Client) -> None:
    job_id = str(uuid.uuid4())
    run = await alice.run(*programs.say(out="x"))
    refused = await refusal(collect(alice.running("no-such-program")))
    await refusal(alice.jobs.get_job(GetJobRequest(job_id=job_id)))
    await alice.jobs.list_jobs(ListJobsRequest())  # what was written behind is there by now
    assert audited(worker, run.started.job_id) == [("alice", "RunJob", "allowed", "ok")]
    assert refused.detail.job_id
    assert ("alice", "RunJob", "allowed", "failed_precondition") in audited(worker, refused.detail.job_id)
