"""Requests written by hand are what the generated classes would have sent."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generated.jobworker import v1
from jobctl import requests
from jobctl.errors import InvalidArgument
from jobwire.codec import decode

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
LABELS = st.dictionaries(TEXT, TEXT, max_size=3)
SPANS = st.timedeltas(timedelta(0), timedelta(days=3653))
LIMITS = st.builds(
    v1.Limits,
    cpus=st.none() | st.floats(0.01, 64),
    memory_bytes=st.none() | st.integers(0, 2**64 - 1),
    pids=st.none() | st.integers(0, 2**64 - 1),
)
CAPS = st.builds(
    v1.OutputCap,
    max_bytes=st.none() | st.integers(0, 2**64 - 1),
    keep=st.sampled_from([v1.Keep(keep) for keep in v1.Keep]),
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "name": TEXT,
        "labels": LABELS,
        "env": LABELS,
        "workdir": TEXT,
        "user": TEXT,
        "limits": LIMITS,
        "timeout": SPANS,
        "wait_for_tree": st.booleans(),
        "stop_signal": st.integers(1, 64),
        "stop_grace": SPANS,
        "best_effort_limits": st.booleans(),
        "output_cap": CAPS,
    },
)


@given(st.lists(TEXT | st.just(""), max_size=5), OPTIONS)
def test_a_spec(argv: list[str], options: Any) -> None:
    assert decode(v1.JobSpec, requests.spec(argv, **options)) == v1.JobSpec(argv=argv, **options)


def test_every_field_of_a_spec_can_be_said() -> None:
    options = set(requests.JobOptions.__annotations__)
    assert options == set(v1.JobSpec.__dataclass_fields__) - {"argv"}


@given(TEXT, st.none() | TEXT)
def test_a_start_is_a_run_is_a_start(request_id: str, job_id: str | None) -> None:
    data = requests.start(requests.spec(["true"]), request_id=request_id, job_id=job_id)
    values: Any = {"spec": v1.JobSpec(argv=["true"]), "request_id": request_id, "job_id": job_id}
    assert decode(v1.StartJobRequest, data) == v1.StartJobRequest(**values)
    assert decode(v1.RunJobRequest, data) == v1.RunJobRequest(**values)


@given(TEXT, st.none() | st.integers(1, 64), st.none() | SPANS)
def test_a_stop(job_id: str, signal: int | None, grace: timedelta | None) -> None:
    request = decode(v1.StopJobRequest, requests.stop(job_id, signal=signal, grace=grace))
    assert request == v1.StopJobRequest(job_id=job_id, signal=signal, grace=grace)
    assert (request.grace is None) == (grace is None)


@given(TEXT, st.integers(1, 64), st.booleans())
def test_a_signal(job_id: str, signal: int, tree: bool) -> None:
    request = decode(v1.SignalJobRequest, requests.signal_job(job_id, signal, tree=tree))
    assert request == v1.SignalJobRequest(job_id=job_id, signal=signal, tree=tree)


@given(TEXT, st.integers(0, 2**64 - 1))
def test_a_stream_of_output(job_id: str, offset: int) -> None:
    data = requests.output(job_id, offset=offset, rest=requests.FOLLOW)
    assert decode(v1.StreamOutputRequest, data) == v1.StreamOutputRequest(
        job_id=job_id, offset=offset, follow=True
    )


@given(
    st.lists(st.sampled_from([1, 2, 3, 4, 300]), max_size=4),
    LABELS,
    TEXT | st.just(""),
    st.integers(0, 1000),
    TEXT | st.just(""),
)
def test_a_listing(states: list[int], labels: dict[str, str], text: str, size: int, token: str) -> None:
    data = requests.listing(
        states=states, labels=labels, owner=text, name=text, id_prefix=text, page_size=size, page_token=token
    )
    wanted = v1.JobFilter(
        states=[v1.JobState.try_value(state) for state in states],
        labels=labels,
        owner=text,
        name=text,
        id_prefix=text,
    )
    request = decode(v1.ListJobsRequest, data)
    assert request.filter == wanted
    assert (request.page_size, request.page_token) == (size, token)


def test_a_state_that_is_no_number_of_one() -> None:
    with pytest.raises(InvalidArgument) as refused:
        requests.listing(states=[-1])
    assert refused.value.field == "filter.states"


@given(TEXT, st.sampled_from([1, 2, 3]), st.binary(), st.none() | TEXT)
def test_a_registration(client_id: str, role: int, certificate: bytes, unix_user: str | None) -> None:
    data = requests.register(client_id, role=role, certificate=certificate, unix_user=unix_user)
    assert decode(v1.RegisterClientRequest, data) == v1.RegisterClientRequest(
        client_id=client_id, role=v1.Role(role), certificate=certificate, unix_user=unix_user
    )
    assert decode(v1.RevokeClientRequest, requests.client(client_id)).client_id == client_id


def test_a_job_is_named_in_one_way() -> None:
    data = requests.job("0199")
    assert decode(v1.GetJobRequest, data) == v1.GetJobRequest(job_id="0199")
    assert decode(v1.WaitJobRequest, data) == v1.WaitJobRequest(job_id="0199")
    assert decode(v1.DeleteJobRequest, data) == v1.DeleteJobRequest(job_id="0199")


@given(st.floats(0, 1e8))
def test_seconds_are_lengths_of_time_to_the_microsecond(seconds: float) -> None:
    spec = decode(v1.JobSpec, requests.spec(["true"], timeout=seconds))
    assert spec.timeout == timedelta(microseconds=round(seconds * 1_000_000))


def test_paths_are_arguments_too() -> None:
    spec = decode(v1.JobSpec, requests.spec([Path("/bin/ls"), "-l"], workdir=Path("/tmp")))
    assert (spec.argv, spec.workdir) == (["/bin/ls", "-l"], "/tmp")


@pytest.mark.parametrize(
    ("argv", "options", "field"),
    [
        ("ls -l", {}, "spec.argv"),
        (b"ls", {}, "spec.argv"),
        (["\udc80"], {}, "spec.argv"),
        (["true"], {"timeout": -1}, "spec.timeout"),
        (["true"], {"timeout": float("nan")}, "spec.timeout"),
        (["true"], {"stop_grace": float("inf")}, "spec.stop_grace"),
        (["true"], {"env": {"X": "\udcff"}}, "spec.env"),
        (["true"], {"output_cap": v1.OutputCap(max_bytes=-1)}, "spec.output_cap.max_bytes"),
        (["true"], {"output_cap": v1.OutputCap(max_bytes=2**64)}, "spec.output_cap.max_bytes"),
        ([b"true"], {}, "spec.argv"),
        (["true"], {"name": 3}, "spec.name"),
        (["true"], {"labels": {"build": 42}}, "spec.labels"),
        (["true"], {"env": {"HOME": None}}, "spec.env"),
        (["true"], {"timeout": "10m"}, "spec.timeout"),
        (["true"], {"stop_signal": "INT"}, "spec.stop_signal"),
        (["true"], {"stop_signal": -15}, "spec.stop_signal"),
        (["true"], {"limits": v1.Limits(cpus="1")}, "spec.limits.cpus"),  # type: ignore[arg-type]
        (["true"], {"limits": v1.Limits(memory_bytes=-1)}, "spec.limits.memory_bytes"),
        (["true"], {"limits": v1.Limits(memory_bytes=2**70)}, "spec.limits.memory_bytes"),
        (["true"], {"limits": v1.Limits(memory_bytes=1.5e9)}, "spec.limits.memory_bytes"),  # type: ignore[arg-type]
        (
            ["true"],
            {"limits": v1.Limits(io=[v1.IoLimit(path="/", read_bytes_per_second=1e7)])},  # type: ignore[arg-type]
            "spec.limits.io[0].read_bytes_per_second",
        ),
        (
            ["true"],
            {"limits": v1.Limits(rlimits={"nofile": v1.RLimit(soft=-1)})},
            "spec.limits.rlimits['nofile'].soft",
        ),
    ],
)
def test_what_cannot_be_sent_is_refused_here(argv: Any, options: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        requests.spec(argv, **options)
    assert raised.value.field == field


def test_request_ids_are_new_every_time() -> None:
    ids = {requests.new_request_id() for _ in range(100)}
    assert len(ids) == 100
    assert {len(one) for one in ids} == {32}


def test_what_is_no_option_is_no_option() -> None:
    options: Any = {"nmae": "build", "time": 3}
    with pytest.raises(TypeError, match="no option of a job: nmae, time"):
        requests.spec(["true"], **options)


def test_what_cannot_be_sent_is_told_shortly() -> None:
    with pytest.raises(InvalidArgument) as raised:
        requests.spec(["\udcff" * 1_000_000])
    assert len(raised.value.message) < 100


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: requests.signal_job("0199", -1),
        lambda: requests.stop("0199", signal=-1),
        lambda: requests.listing(page_size=-1),
        lambda: requests.update("0199", v1.Limits(pids=-1)),
    ],
)
def test_a_number_does_not_become_another(wrong: Callable[[], bytes]) -> None:
    with pytest.raises(InvalidArgument, match="is no whole number from 0 on: -1"):
        wrong()
