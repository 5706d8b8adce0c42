"""Requests that are well-formed pass; every other one is refused by the name of the field that is wrong."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generated.jobworker import v1
from generated.jobworker.v1 import JobState, Keep, Limits, OutputCap, Role, Stream
from jobwire.codec import decode, encode
from jobworker.errors import InvalidArgument
from jobworker.rpc import validate

JOB = "0199f0c2-7a4b-7c3d-8e2f-0123456789ab"
NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAYS_TOO_MANY = timedelta(days=4000)


def a_spec(**fields: Any) -> v1.JobSpec:
    return v1.JobSpec(**{"argv": ["true"], **fields})


def refusal(request: Any) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as refused:
        validate.check(decode(type(request), encode(request)))
    assert refused.value.field in refused.value.message
    assert refused.value.hint, "says what to do"
    return refused.value


GOOD_SPECS = [
    {},
    {"argv": ["sh", "-c", "", "\n", "ü", "x" * 2_000_000]},
    {"name": "build.2-x_y"},
    {"labels": {"ci/run": "42", "a": ""}},
    {"env": {"PATH": "/bin", "_": "", "with space": "a=b\n"}},
    {"workdir": "/"},
    {"user": "www-data"},
    {"limits": Limits()},
    {"limits": Limits(cpus=0.001, memory_bytes=1, pids=1)},
    {"timeout": timedelta(milliseconds=1)},
    {"stop_signal": 1},
    {"stop_signal": 64},
    {"stop_grace": timedelta(0)},
    {"output_cap": OutputCap()},
    {"output_cap": OutputCap(max_bytes=1, keep=Keep(Keep.OLDEST))},
]

BAD_SPECS = [
    ("spec.argv", {"argv": []}),
    ("spec.argv[0]", {"argv": ["", "x"]}),
    ("spec.argv[0]", {"argv": ["a\0b"]}),
    ("spec.argv[2]", {"argv": ["a", "b", "\0"]}),
    ("spec.name", {"name": "-rf"}),
    ("spec.name", {"name": "a b"}),
    ("spec.name", {"name": "a" * 129}),
    ("spec.name", {"name": "a\n"}),
    ("spec.labels['']", {"labels": {"": "x"}}),
    ("spec.labels['a b']", {"labels": {"a b": "x"}}),
    ("spec.labels['a']", {"labels": {"a": "x" * 257}}),
    ("spec.labels['a']", {"labels": {"a": "x\ny"}}),
    ("spec.labels", {"labels": {f"k{n}": "" for n in range(65)}}),
    ("spec.env['']", {"env": {"": "x"}}),
    ("spec.env['A=B']", {"env": {"A=B": "x"}}),
    ("spec.env['A\\x00']", {"env": {"A\0": "x"}}),
    ("spec.env['A']", {"env": {"A": "x\0"}}),
    ("spec.env", {"env": {f"K{n}": "" for n in range(4097)}}),
    ("spec.workdir", {"workdir": ""}),
    ("spec.workdir", {"workdir": "tmp"}),
    ("spec.workdir", {"workdir": "/a\0"}),
    ("spec.workdir", {"workdir": "/" + "a" * 4095}),
    ("spec.user", {"user": ""}),
    ("spec.user", {"user": "a:b"}),
    ("spec.output_cap.max_bytes", {"output_cap": OutputCap(max_bytes=0)}),
    ("spec.output_cap.max_bytes", {"output_cap": OutputCap(max_bytes=2**53)}),
    ("spec.output_cap.keep", {"output_cap": OutputCap(max_bytes=1, keep=Keep.try_value(4))}),
    ("spec.limits.cpus", {"limits": Limits(cpus=0.0)}),
    ("spec.limits.cpus", {"limits": Limits(cpus=-1.0)}),
    ("spec.limits.cpus", {"limits": Limits(cpus=math.nan)}),
    ("spec.limits.cpus", {"limits": Limits(cpus=math.inf)}),
    ("spec.limits.memory_bytes", {"limits": Limits(memory_bytes=0)}),
    ("spec.limits.memory_bytes", {"limits": Limits(memory_bytes=2**64 - 1)}),
    ("spec.limits.pids", {"limits": Limits(pids=0)}),
    ("spec.limits.pids", {"limits": Limits(pids=4_194_305)}),
    ("spec.timeout", {"timeout": timedelta(0)}),
    ("spec.timeout", {"timeout": timedelta(seconds=-1)}),
    ("spec.timeout", {"timeout": timedelta(microseconds=1)}),
    ("spec.timeout", {"timeout": DAYS_TOO_MANY}),
    ("spec.stop_signal", {"stop_signal": 0}),
    ("spec.stop_signal", {"stop_signal": 65}),
    ("spec.stop_signal", {"stop_signal": -9}),
    ("spec.stop_grace", {"stop_grace": timedelta(seconds=-1)}),
    ("spec.stop_grace", {"stop_grace": DAYS_TOO_MANY}),
]


@pytest.mark.parametrize("fields", GOOD_SPECS, ids=lambda fields: ",".join(fields) or "least")
@pytest.mark.parametrize("cls", [v1.StartJobRequest, v1.RunJobRequest])
def test_good_specs_pass(cls: type[Any], fields: dict[str, Any]) -> None:
    validate.check(cls(spec=a_spec(**fields), request_id="r", job_id=JOB))


@pytest.mark.parametrize(
    ("field", "fields"), BAD_SPECS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_bad_specs_name_the_field(field: str, fields: dict[str, Any]) -> None:
    assert refusal(v1.StartJobRequest(spec=a_spec(**fields))).field == field
    assert refusal(v1.RunJobRequest(spec=a_spec(**fields))).field == field


GOOD = [
    v1.StartJobRequest(spec=a_spec()),
    v1.StopJobRequest(job_id=JOB, signal=2, grace=timedelta(0)),
    v1.StopJobRequest(job_id="an-id-that-may-exist"),
    v1.SignalJobRequest(job_id=JOB, signal=64, tree=True),
    v1.GetJobRequest(job_id=JOB),
    v1.WaitJobRequest(job_id=JOB),
    v1.DeleteJobRequest(job_id=JOB),
    v1.ListJobsRequest(),
    v1.ListJobsRequest(page_size=2**32 - 1, page_token="x"),
    v1.ListJobsRequest(
        filter=v1.JobFilter(
            states=[JobState(JobState.RUNNING)], labels={"a": "b"}, owner="alice", name="n", id_prefix="0199"
        )
    ),
    v1.StreamOutputRequest(
        job_id=JOB, offset=3, until_offset=3, tail_lines=0, tail_bytes=2**63 - 1, since=NOW, until=NOW
    ),
    v1.StreamOutputRequest(job_id=JOB, offset=2**63 - 1, streams=[Stream(0), Stream(1), Stream(2)]),
    v1.GetWorkerRequest(),
    v1.ListClientsRequest(),
    v1.RegisterClientRequest(client_id="a@b", role=Role(Role.VIEWER), certificate=b"x", unix_user="u"),
    v1.RevokeClientRequest(client_id="alice"),
]

BAD = [
    ("request_id", v1.StartJobRequest(spec=a_spec(), request_id="x" * 257)),
    ("request_id", v1.StartJobRequest(spec=a_spec(), request_id="a\nb")),
    ("job_id", v1.StartJobRequest(spec=a_spec(), job_id="")),
    ("job_id", v1.StartJobRequest(spec=a_spec(), job_id="../../etc")),
    ("job_id", v1.RunJobRequest(spec=a_spec(), job_id=JOB.upper())),
    ("spec.argv", v1.StartJobRequest()),
    ("job_id", v1.StopJobRequest()),
    ("signal", v1.StopJobRequest(job_id=JOB, signal=0)),
    ("signal", v1.StopJobRequest(job_id=JOB, signal=2**31 - 1)),
    ("grace", v1.StopJobRequest(job_id=JOB, grace=timedelta(seconds=-1))),
    ("signal", v1.SignalJobRequest(job_id=JOB)),
    ("signal", v1.SignalJobRequest(job_id=JOB, signal=65)),
    ("job_id", v1.SignalJobRequest(signal=9)),
    ("job_id", v1.GetJobRequest()),
    ("job_id", v1.GetJobRequest(job_id="x" * 65)),
    ("job_id", v1.GetJobRequest(job_id="../x")),
    ("job_id", v1.GetJobRequest(job_id="a\0")),
    ("job_id", v1.WaitJobRequest()),
    ("job_id", v1.DeleteJobRequest()),
    ("page_token", v1.ListJobsRequest(page_token="x" * 257)),
    ("filter.states[0]", v1.ListJobsRequest(filter=v1.JobFilter(states=[JobState.try_value(0)]))),
    ("filter.states[1]", v1.ListJobsRequest(filter=v1.JobFilter(states=[JobState.try_value(n) for n in (1, 99)]))),
    ("filter.states[0]", v1.ListJobsRequest(filter=v1.JobFilter(states=[JobState.try_value(-1)]))),
    ("filter.labels['?']", v1.ListJobsRequest(filter=v1.JobFilter(labels={"?": ""}))),
    ("filter.owner", v1.ListJobsRequest(filter=v1.JobFilter(owner="%"))),
    ("filter.name", v1.ListJobsRequest(filter=v1.JobFilter(name="*"))),
    ("filter.id_prefix", v1.ListJobsRequest(filter=v1.JobFilter(id_prefix="%"))),
    ("job_id", v1.StreamOutputRequest()),
    ("offset", v1.StreamOutputRequest(job_id=JOB, offset=2**63)),
    ("until_offset", v1.StreamOutputRequest(job_id=JOB, until_offset=2**63)),
    ("until_offset", v1.StreamOutputRequest(job_id=JOB, offset=3, until_offset=2)),
    ("tail_lines", v1.StreamOutputRequest(job_id=JOB, tail_lines=2**63)),
    ("tail_bytes", v1.StreamOutputRequest(job_id=JOB, tail_bytes=2**64 - 1)),
    ("until", v1.StreamOutputRequest(job_id=JOB, since=NOW, until=NOW - timedelta(microseconds=1))),
    ("streams[1]", v1.StreamOutputRequest(job_id=JOB, streams=[Stream(1), Stream.try_value(3)])),
    ("client_id", v1.RegisterClientRequest(role=Role(Role.ADMIN), certificate=b"x")),
    ("role", v1.RegisterClientRequest(client_id="a", certificate=b"x")),
    ("role", v1.RegisterClientRequest(client_id="a", role=Role.try_value(4), certificate=b"x")),
    ("certificate", v1.RegisterClientRequest(client_id="a", role=Role(Role.ADMIN))),
    ("certificate", v1.RegisterClientRequest(client_id="a", role=Role(1), certificate=bytes(70_000))),
    ("unix_user", v1.RegisterClientRequest(client_id="a", role=Role(1), certificate=b"x", unix_user="")),
    ("client_id", v1.RevokeClientRequest(client_id="a b")),
]  # fmt: skip


@pytest.mark.parametrize("request_", GOOD, ids=lambda request: type(request).__name__)
def test_good_requests_pass(request_: Any) -> None:
    validate.check(decode(type(request_), encode(request_)))


@pytest.mark.parametrize(
    ("field", "request_"), BAD, ids=lambda value: value if isinstance(value, str) else type(value).__name__
)
def test_bad_requests_name_the_field(field: str, request_: Any) -> None:
    assert refusal(request_).field == field


def test_every_request_of_the_api_has_its_check() -> None:
    requests = {cls for name, cls in vars(v1).items() if name.endswith("Request")}
    assert requests == set(validate.CHECKS)


def test_refusals_do_not_repeat_a_long_value() -> None:
    assert len(refusal(v1.GetJobRequest(job_id="x" * 100_000)).message) < 200
    assert len(refusal(v1.StartJobRequest(spec=a_spec(labels={"?" * 100_000: ""}))).message) < 200


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
SPECS = st.builds(
    v1.JobSpec,
    argv=st.lists(TEXT, max_size=3),
    name=TEXT,
    labels=st.dictionaries(TEXT, TEXT, max_size=3),
    env=st.dictionaries(TEXT, TEXT, max_size=3),
    workdir=st.none() | TEXT,
    user=st.none() | TEXT,
    limits=st.none() | st.builds(Limits, cpus=st.none() | st.floats(), memory_bytes=st.none() | st.integers(0, 2**64 - 1)),
    timeout=st.none() | st.timedeltas(min_value=timedelta(days=-1), max_value=timedelta(days=9999)),
    stop_signal=st.none() | st.integers(-(2**31), 2**31 - 1),
)  # fmt: skip


@given(SPECS)
def test_whatever_passes_can_be_handed_to_the_kernel(spec: v1.JobSpec) -> None:
    try:
        validate.check(v1.StartJobRequest(spec=spec))
    except InvalidArgument:
        return
    assert spec.argv[0]
    strings = [*spec.argv, *spec.env, *spec.env.values(), spec.name, spec.workdir or "", spec.user or ""]
    assert not any("\0" in text for text in strings)
    assert not any("=" in name or not name for name in spec.env)
    assert spec.timeout is None or spec.timeout > timedelta(0)
    assert spec.stop_signal is None or 1 <= spec.stop_signal <= 64
