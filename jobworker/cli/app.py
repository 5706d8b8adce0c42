"""Which commands there are, and the way from what was typed to an exit status.

cyclopts parses and prints help. Whatever goes wrong is told in two lines on stderr, `error:` and `hint:`:
exit 2 for what was typed or set wrongly, 125 for what could not be done.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from jobwire import __version__
from jobworker.cli import FAILED
from jobworker.errors import InvalidArgument, JobworkerError

WRONG_USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT

app = App(
    name="jobworker",
    help="Run programs for remote clients: the worker itself, and who may use it.",
    version=f"jobworker {__version__}",
    default_parameter=Parameter(negative=(), show_default=False),
)
app.command("jobworker.cli.serve:serve", name="serve", help="Serve clients, until SIGTERM or SIGINT.")
app.command(
    "jobworker.cli.supervisor:supervisor",
    name="supervisor",
    help="Be the supervisor, as a unit of its own (serve starts one where none runs), or upgrade the one that runs.",
)
app.command(
    "jobworker.cli.doctor:doctor",
    name="doctor",
    help="Tell what this host can do for jobs, and what would make it do the rest.",
)
clients = App(name="client", help="Say who may use the worker; works while it runs, on its state directory.")
clients.command("jobworker.cli.client:add", name="add", help="Register a client by its certificate.")
clients.command("jobworker.cli.client:list_all", name="list", help="List clients, revoked ones too.")
clients.command(
    "jobworker.cli.client:revoke", name="revoke", help="Turn a client away from now on; its jobs run on."
)
app.command(clients)


def dispatch(words: Sequence[str]) -> int:
    """Runs what was typed and returns the exit status."""
    try:
        result = app(list(words), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _tell(_sentence(error), hint=" ".join(("jobworker", *(error.command_chain or ()), "--help")))
    except InvalidArgument as error:
        return _tell(error.message, hint=error.hint)
    except JobworkerError as error:
        return _tell(error.message, hint=error.hint, status=FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    return result if isinstance(result, int) else 0


def _tell(message: str, *, hint: str, status: int = WRONG_USAGE) -> int:
    sys.stderr.write(f"error: {message}\n")
    if hint:
        sys.stderr.write(f"hint: {hint}\n")
    return status


def _sentence(error: CycloptsError) -> str:
    """The first sentence of what the parser says, as ours begin and end."""
    if isinstance(error, UnusedCliTokensError):
        return f"too many words: '{' '.join(error.unused_tokens or ())}'"
    text = str(error).strip().splitlines()[0].partition(" Available ")[0].strip().rstrip(".?")
    return (text[:1].lower() + text[1:]).replace(". Did", "; did").replace('"', "'")
