"""How much of a job's output is kept: asked for, in force, and seen in `status`, `worker` and `logs`."""

import re
from datetime import timedelta

import pytest

from generated.jobworker import v1
from jobctl.cli import status, worker
from jobctl.cli.describe import output_facts, storage_facts
from tests.cli.conftest import Jobctl
from tests.harness import programs

MIB = 1 << 20


def test_the_oldest(jobctl: Jobctl) -> None:
    options = ("--name", "oldest", "--output-max", "1M", "--output-keep", "oldest")
    done = jobctl("run", *options, "--", *programs.write_bytes(3 * MIB))
    assert (done.returncode, len(done.stdout)) == (0, MIB)
    notes = done.stderr.decode().splitlines()
    assert all(
        re.fullmatch(r"note: bytes \d+ to \d+ of the output are gone: not stored, over the job's cap", one)
        for one in notes
    )
    assert len(notes) in (1, 2)
    assert (
        "  output    oldest 1 MiB of 3 MiB kept, 2 MiB not stored (cap 1 MiB, oldest kept)"
        in jobctl.text("status", "oldest").splitlines()
    )
    (record,) = jobctl.json("status", "oldest")
    assert record["output_cap"] == {"max_bytes": MIB, "keep": "oldest"}
    assert record["output"] == {
        "size": 3 * MIB, "head": 0, "dropped": 2 * MIB, "cap": {"max_bytes": MIB, "keep": "oldest"}
    }  # fmt: skip
    assert jobctl("logs", "oldest").stdout == done.stdout


def test_the_newest(jobctl: Jobctl) -> None:
    jobctl.text("start", "--name", "newest", "--output-max=1M", "--", *programs.write_bytes(3 * MIB))
    assert jobctl("wait", "newest").returncode == 0
    (record,) = jobctl.json("status", "newest")
    head = record["output"]["head"]
    done = jobctl("logs", "newest")
    assert len(done.stdout) == 3 * MIB - head
    assert done.stderr.decode() == f"note: bytes 0 to {head} of the output are gone: no longer kept\n"
    assert re.search(
        r"output    newest [\d.]+ [KM]iB of 3 MiB kept \(cap 1 MiB, newest kept\)",
        jobctl.text("status", "newest"),
    )


def test_a_job_that_waits_for_its_cap(jobctl: Jobctl) -> None:
    options = ("--output-max", "1M", "--output-keep", "ALL")
    job = jobctl.text("start", *options, "--", *programs.write_bytes(3 * MIB))
    process = jobctl.begin("logs", "-f", job)
    assert process.stdout is not None
    assert len(process.stdout.read(MIB)) == MIB
    assert jobctl.text("status", job).splitlines()[-1] == (
        "  output    1 MiB, kept whole (cap 1 MiB, then it waits), waiting: cap reached"
    )
    assert jobctl.json("status", job)[0]["output"]["blocked"] == "cap"
    jobctl("stop", job)


def test_all_of_it(jobctl: Jobctl) -> None:
    done = jobctl("run", "--name", "all", "--output-keep", "all", "--", *programs.say(out="x"))
    assert done.returncode == 0
    assert jobctl.text("status", "all").splitlines()[-1] == "  output    1 B, kept whole"
    assert jobctl.json("status", "all")[0]["output_cap"] == {"keep": "all"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--output-max", "lots"],
            "--output-max: 'lots' is no size: a number and K, M, G, T, P or E (512M, 1.5G)",
        ),
        (
            ["--output-max", "1M", "--output-keep", "some"],
            "--output-keep: 'some' is none of newest, oldest, all",
        ),
        (["--output-max", "1M", "--output-keep", ""], "--output-keep: '' is none of newest, oldest, all"),
        (["--output-keep", "oldest"], "--output-keep oldest of how much"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "start"])
def test_no_caps(jobctl: Jobctl, verb: str, options: list[str], message: str) -> None:
    done = jobctl(verb, *options, "--", "true")
    assert (done.returncode, done.stderr.decode().splitlines()[0]) == (2, f"error: {message}")


def info(**fields: object) -> v1.OutputInfo:
    return v1.OutputInfo(**fields)  # type: ignore[arg-type]


CAP = v1.OutputCap(max_bytes=512 * MIB, keep=v1.Keep(v1.Keep.NEWEST))


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (info(), "none"),
        (info(cap=v1.OutputCap()), "none"),
        (info(size=9, cap=CAP), "9 B, kept whole (cap 512 MiB, newest kept)"),
        (
            info(size=3 << 30, head=5 << 29, cap=CAP),
            "newest 512 MiB of 3 GiB kept (cap 512 MiB, newest kept)",
        ),
        (info(size=3 << 30, head=1 << 30), "newest 2 GiB of 3 GiB kept"),
        (info(size=3 << 30, dropped=1 << 30), "oldest 2 GiB of 3 GiB kept, 1 GiB not stored"),
        (info(size=3 << 30, head=1 << 30, dropped=1 << 30), "newest 1 GiB of 3 GiB kept, 1 GiB not stored"),
        (info(size=9, blocked=v1.OutputBlock(v1.OutputBlock.DISK)), "9 B, kept whole, waiting: disk full"),
    ],
)
def test_in_words(output: v1.OutputInfo, text: str) -> None:
    assert status.output(output) == text


def test_storage_in_words_and_for_programs() -> None:
    kept = v1.Retention(max_bytes=10 << 30, max_age=timedelta(days=30), max_jobs=10_000)
    storage = v1.Storage(
        ended_bytes=3 << 30, free_bytes=40 << 30, blocked_jobs=2, retention=kept, default_cap=CAP
    )
    assert worker.storage_lines(storage) == [
        "  storage   40 GiB free, 3 GiB used by ended jobs",
        "  keeps     ended jobs up to 10 GiB, 30 d, 10,000 jobs; of a job's output 512 MiB, newest kept",
        "  warning   2 jobs wait to write output: disk full",
    ]
    assert storage_facts(storage) == {
        "ended_bytes": 3 << 30,
        "free_bytes": 40 << 30,
        "blocked_jobs": 2,
        "retention": {"max_bytes": 10 << 30, "max_age_seconds": 2_592_000, "max_jobs": 10_000},
        "default_cap": {"max_bytes": 512 * MIB, "keep": "newest"},
    }
    unlimited = v1.Storage(free_bytes=1, blocked_jobs=1, retention=v1.Retention(), default_cap=v1.OutputCap())
    assert worker.storage_lines(unlimited)[1:] == [
        "  keeps     all ended jobs; of a job's output all",
        "  warning   1 job waits to write output: disk full",
    ]


def test_an_output_that_waits_for_programs() -> None:
    facts = output_facts(info(size=2**63, blocked=v1.OutputBlock(v1.OutputBlock.DISK)))
    assert facts == {"size": 2**63, "head": 0, "dropped": 0, "blocked": "disk"}
    assert output_facts(info(cap=v1.OutputCap())) == {
        "size": 0, "head": 0, "dropped": 0, "cap": {"keep": "newest"}
    }  # fmt: skip


def test_the_worker_tells_how_its_storage_is(jobctl: Jobctl) -> None:
    lines = jobctl.text("worker").splitlines()
    assert any(re.fullmatch(r"  storage   .* free, .* used by ended jobs", one) for one in lines)
    assert any(one.startswith("  keeps     ") for one in lines)
    (facts,) = jobctl.json("worker")
    assert facts["storage"]["free_bytes"] > 0
    assert facts["storage"]["blocked_jobs"] == 0
