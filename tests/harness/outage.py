"""What runs on the machine whose plug is pulled: `begin` gives a worker jobs and tells of them, `look` what became of them.

    python -m tests.harness.outage begin|look CERTIFICATES

The worker's state is in $TMPDIR, which outlives the machine. Both print one line of JSON: job id → what is known.
"""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

import jobctl
from jobworker.durability import MANY, MOMENT
from tests.harness.certificates import Certificates
from tests.harness.worker import Worker, register_everybody

LINES = 500
PROGRAM = ["sh", "-c", f"seq {LINES}; exit 3"]
SLEEPER = ["sh", "-c", "echo here; exec sleep 1000"]


async def begin(client: jobctl.Client) -> dict[str, object]:
    """Ends a few jobs, then many at once; leaves one running."""
    runs = await client.start(SLEEPER)
    jobs = [await client.start(PROGRAM)]
    told = {jobs[0].id: (await jobs[0].wait()).exit_code}
    await asyncio.sleep(MOMENT)  # its sync is over before the others end
    jobs = [await client.start(PROGRAM) for _ in range(2 * MANY)]
    results = await asyncio.gather(*(job.wait() for job in jobs))
    told |= {job.id: result.exit_code for job, result in zip(jobs, results, strict=True)}
    await asyncio.sleep(2 * MOMENT)  # how much may be lost is what this is about
    return {**told, runs.id: None}


async def look(client: jobctl.Client) -> dict[str, object]:
    """The reason, exit code and output of every job."""
    found: dict[str, object] = {}
    async for job in client.list():
        async with job.output() as output:
            data = b"".join([chunk.data async for chunk in output])
        termination = job.record.termination
        assert termination is not None
        found[job.id] = [str(termination.reason.name), termination.exit_code, data.decode()]
    return found


async def main(what: str, certificates: Certificates) -> None:
    """Serves, does it, tells."""
    worker = Worker(certificates, directory=Path(tempfile.gettempdir(), "outage"))
    if what == "begin":
        register_everybody(worker.state, certificates)
    worker.start()
    ca, cert = certificates.authority, certificates.of("alice")
    async with jobctl.Client(worker.address, ca=ca, cert=cert) as client:
        told = await (begin if what == "begin" else look)(client)
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        if what == "begin":
            await asyncio.Event().wait()  # until there is no power any more
    worker.close()


if __name__ == "__main__":
    os.umask(0o022)
    asyncio.run(main(sys.argv[1], Certificates(Path(sys.argv[2]))))
