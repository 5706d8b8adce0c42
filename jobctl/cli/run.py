"""`jobctl run` with options; without any it does not even come here (see jobctl.cli). The loop is runloop's."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from jobctl import requests
from jobctl.cli.runloop import Plain
from jobctl.cli.runloop import run as run_request
from jobctl.cli.session import DEFAULT, Session
from jobctl.cli.spec import NO_FLAGS, JobFlags, program


async def run(
    *argv: str,
    flags: JobFlags = NO_FLAGS,
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"])] = False,
    session: Session = DEFAULT,
) -> int:
    """Run a program as if it were here: its output, its exit status.

    Ctrl-C stops the job, a second one kills it. A broken connection is taken up again at the next byte.

    Parameters
    ----------
    argv
        The program and its arguments; put -- before it.
    verbose
        Say when the connection broke.
    """
    spec = requests.spec(program(argv, verb="run"), **flags.options())
    request = requests.start(spec, request_id=flags.request_id or requests.new_request_id(), job_id=flags.id)
    async with session.client() as client:
        if session.as_json:
            from jobctl.cli.describe import JsonLines  # noqa: PLC0415 - loads the message classes

            return await run_request(client.connection, request, view=JsonLines(sys.stdout, verbose=verbose))
        return await run_request(client.connection, request, view=Plain(verbose=verbose))
