"""State directories that earlier versions left, one of each format of the database: what is in them is served for ever.

Each was left by a worker that was killed with everything else while a job ran; another job had exited with 3, and the
program of a third was not found.
"""

import shutil
from pathlib import Path

import pytest

from generated.jobworker.v1 import EndReason, JobFilter, JobRecord
from jobwire.codec import decode
from jobworker.follow import follow
from jobworker.outputs import Outputs
from jobworker.span import Span
from jobworker.store.schema import MIGRATIONS
from tests.harness.domain import ALICE, Domain

DATA = Path(__file__).parents[1] / "data"
SAMPLES = sorted(path.name for path in DATA.glob("state-v*"))


def test_there_is_one_of_each_format() -> None:
    assert [f"state-v{number + 1}" for number in range(len(MIGRATIONS))] == SAMPLES


@pytest.mark.parametrize("sample", SAMPLES)
async def test_an_old_state_directory_is_served(sample: str) -> None:
    domain = Domain()
    shutil.copytree(DATA / sample, domain.path)
    domain.path.chmod(0o711)
    try:
        await domain.open()
        page, _ = domain.jobs.list(ALICE, JobFilter(), page_size=0, page_token="")
        lost, missing, build = [decode(JobRecord, stored) for stored in page]
        assert (build.spec.name, dict(build.spec.labels)) == ("build", {"ci": "42"})
        assert reason(build) == (EndReason.EXITED, 3)
        assert await output(domain, build) == b"out\nerr\n"
        assert reason(missing) == (EndReason.START_FAILED, None)
        assert reason(lost) == (EndReason.LOST, None)  # of another boot
        assert await output(domain, lost) == b"before\n"
        assert reason(await domain.wait((await domain.start("true")).job_id)) == (EndReason.EXITED, 0)
        await domain.jobs.delete(ALICE, build.job_id)
        await domain.end_supervisor()
    finally:
        await domain.close()
        domain.remove()


def reason(record: JobRecord) -> tuple[EndReason, int | None]:
    assert record.termination is not None
    return record.termination.reason, record.termination.exit_code


async def output(domain: Domain, record: JobRecord) -> bytes:
    """Everything that is delivered of it, with what the messages have around it."""
    source = domain.jobs.output(ALICE, record.job_id)
    outputs = Outputs()
    data = b""
    async for batch in follow(source, outputs=outputs, span=Span()):
        data += b"".join(
            bytes(event[1]) for event in batch if len(event) == 3
        )  # head, data and tail of a chunk
    outputs.close()
    return data
