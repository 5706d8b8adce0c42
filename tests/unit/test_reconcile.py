"""The verdict for every combination of witnesses, and that one witness can be wrong."""

import json
from itertools import product
from pathlib import Path

import pytest

from generated.jobworker.v1 import EndReason, JobRecord, JobSpec, JobState
from jobworker import outputindex, records
from jobworker.lifecycle import RUNNING, STARTING, STOPPING
from jobworker.outputindex import Header, pack_header
from jobworker.reconcile import Verdict, decide, output_info, settle
from jobworker.supervisor.messages import ListedJob

NOW = 1_767_225_600_000_000_000
HELD: ListedJob = {
    "job": "j",
    "pid": 42,
    "started_ns": NOW,
    "limits": {},
    "unenforced": [],
    "stopping": False,
    "paused": False,
}
ABOUT_TO_START: ListedJob = {**HELD, "started_ns": None}


@pytest.mark.parametrize("state", [STARTING, RUNNING, STOPPING])
def test_an_exit_record_decides_whatever_else_is_said(state: JobState) -> None:
    for listed, was_begun in product((None, HELD, ABOUT_TO_START), (False, True)):
        assert decide(state, listed=listed, has_exit=True, was_begun=was_begun) is Verdict.ENDED


@pytest.mark.parametrize(
    ("written", "reason"),
    [(b"", EndReason.START_FAILED), (b"\0" * 64, EndReason.START_FAILED), (b"{", EndReason.LOST)],
)
def test_a_directory_in_which_nothing_was_written_down_is_of_a_job_that_was_never_ordered(
    tmp_path: Path, written: bytes, reason: EndReason
) -> None:
    for name, content in {"output.log": b"", "output.idx": pack_header(Header()), "running": written}.items():
        (tmp_path / name).write_bytes(content)
    settled = settle(record(STARTING), listed=None, directory=tmp_path, unix_nano=NOW)
    assert settled.termination is not None
    assert settled.termination.reason == reason


def test_after_a_boot_what_was_not_written_down_may_have_been_done(tmp_path: Path) -> None:
    (tmp_path / "running").write_bytes(b"")
    settled = settle(record(STARTING), listed=None, directory=tmp_path, unix_nano=NOW, is_of_this_boot=False)
    assert settled.termination is not None
    assert settled.termination.reason == EndReason.LOST


def test_the_output_of_a_lost_job_is_mended(tmp_path: Path) -> None:
    header = outputindex.Header(pending=outputindex.STDERR)
    record_of_hi = outputindex.pack_record(2, stream=outputindex.STDOUT, time_ns=1)
    (tmp_path / "output.log").write_bytes(b"hioh")
    (tmp_path / "output.idx").write_bytes(outputindex.pack_header(header) + record_of_hi + b"torn")
    settle(record(RUNNING), listed=HELD, directory=tmp_path, unix_nano=NOW)
    assert (tmp_path / "output.idx").read_bytes().endswith(b"torn")  # its writer lives
    settle(record(RUNNING), listed=None, directory=tmp_path, unix_nano=NOW)
    data = (tmp_path / "output.idx").read_bytes()
    found = [(each.end, each.stream) for each in outputindex.read_records(data, 0, limit=9)]
    assert found == [(2, outputindex.STDOUT), (4, outputindex.STDERR)]


@pytest.mark.parametrize("state", [STARTING, RUNNING, STOPPING])
def test_else_the_supervisor_decides(state: JobState) -> None:
    for was_begun in (False, True):
        assert decide(state, listed=HELD, has_exit=False, was_begun=was_begun) is Verdict.RUNS
        assert decide(state, listed=ABOUT_TO_START, has_exit=False, was_begun=was_begun) is Verdict.STARTS


@pytest.mark.parametrize(
    ("state", "was_begun", "verdict"),
    [
        (STARTING, False, Verdict.NEVER_STARTED),
        (STARTING, True, Verdict.LOST),
        (RUNNING, False, Verdict.LOST),
        (RUNNING, True, Verdict.LOST),
        (STOPPING, False, Verdict.LOST),
        (STOPPING, True, Verdict.LOST),
    ],
)
def test_else_what_was_begun_is_lost(state: JobState, was_begun: bool, verdict: Verdict) -> None:
    assert decide(state, listed=None, has_exit=False, was_begun=was_begun) is verdict


def record(state: JobState = STARTING) -> JobRecord:
    entry = records.accept("j", owner="alice", spec=JobSpec(argv=["true"]), unix_nano=NOW, workdir="/")
    entry.state = state
    return entry


def test_a_record_of_before_the_launch_catches_up(tmp_path: Path) -> None:
    settled = settle(record(), listed=HELD, directory=tmp_path, unix_nano=NOW)
    assert (settled.state, settled.pid) == (RUNNING, 42)
    assert settled.started_at == records.moment(NOW)


def test_a_stop_that_was_recorded_is_kept(tmp_path: Path) -> None:
    assert settle(record(STOPPING), listed=HELD, directory=tmp_path, unix_nano=NOW).state == STOPPING


def test_a_launch_on_its_way_is_left_to_itself(tmp_path: Path) -> None:
    assert settle(record(), listed=ABOUT_TO_START, directory=tmp_path, unix_nano=NOW).state == STARTING


def test_a_damaged_exit_record_leaves_the_job_to_the_other_witnesses(tmp_path: Path) -> None:
    (tmp_path / "exit").write_text(json.dumps({"version": 1, "job": "j", "exit_code": "three"}))
    before = record(RUNNING)
    assert settle(before, listed=HELD, directory=tmp_path, unix_nano=NOW).state == RUNNING
    lost = settle(before, listed=None, directory=tmp_path, unix_nano=NOW)
    assert lost.termination is not None
    assert lost.termination.reason == EndReason.LOST
    assert lost.ended_at == records.moment(NOW)


def test_output_of_a_job_without_files_is_unknown(tmp_path: Path) -> None:
    assert output_info(tmp_path) is None
    (tmp_path / "output.log").write_bytes(b"12345")
    (tmp_path / "output.idx").write_bytes(b"damaged")
    assert output_info(tmp_path) == {"size": 5, "head": 0, "dropped": 0, "blocked": None}
    (tmp_path / "output.idx").write_bytes(pack_header(Header(head=2, dropped=7)))
    assert output_info(tmp_path) == {"size": 12, "head": 2, "dropped": 7, "blocked": None}
