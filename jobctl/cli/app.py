"""Every verb's name and where it is; the way from what was typed to an exit status.

cyclopts parses and prints help; each verb's file is imported when it is called. A usage error is told like any other,
in two lines, and exits with 2.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from jobctl.cli.failure import WRONG_USAGE, run_to_end, tell, writing
from jobctl.errors import InvalidArgument
from jobwire import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS = {  # verb: (what it does, other names for it)
    "start": ("Start a job and print its id.", ()),
    "run": ("Run a program as if it were here: its output, its exit status.", ()),
    "stop": ("Stop jobs: a signal to the whole tree, KILL after the grace period.", ()),
    "signal": ("Send a signal to a job.", ()),
    "update": ("Change limits of a running job.", ()),
    "pause": ("Keep jobs from running, until they are resumed.", ()),
    "resume": ("Let paused jobs go on.", ()),
    "status": ("Tell all that is known of a job.", ("get",)),
    "list": ("List jobs, newest first.", ("ps",)),
    "wait": ("Wait for a job to end; exit as it did.", ()),
    "logs": ("Print a job's output.", ("output",)),
    "rm": ("Delete jobs that have ended, with their output.", ("delete",)),
    "worker": ("Tell what the worker is and can do.", ()),
}

HOMES = {"resume": "pause"}  # a verb's file, where it is not called as the verb

app = App(
    name="jobctl",
    help="Run programs on a worker: start, watch, stop.",
    version=f"jobctl {__version__}",
    default_parameter=Parameter(negative=(), show_default=False),
)
for verb, (what, aliases) in VERBS.items():
    app.command(f"jobctl.cli.{HOMES.get(verb, verb)}:{verb}", name=(verb, *aliases), help=what)

contexts = App(name="context", help="Choose among the workers of the configuration file.")
for verb, what in {
    "list": "List the contexts; * marks the current one.",
    "use": "Make a context the current one.",
    "add": "Add a context to the configuration file.",
}.items():
    contexts.command(f"jobctl.cli.context:{verb}_context", name=verb, help=what)
app.command(contexts)

clients = App(name="client", help="Say who may use the worker (admins only).")
for verb, what in {
    "list": "List the registered clients.",
    "add": "Register a client by its certificate.",
    "revoke": "Turn a client away from now on; its jobs run on.",
}.items():
    clients.command(f"jobctl.cli.client:{verb}_client", name=verb, help=what)
app.command(clients)


PROGRAM_VERBS = ("start", "run")  # what follows their options is a program with options of its own
SWITCHES = (
    "--wait-for-tree",
    "--best-effort",
    "--verbose",
    "-v",
)  # those of their options that take no value
ASKING = ("--help", "-h", "--version")


def dispatch(arguments: Sequence[str]) -> int:
    """Runs what was typed and returns the exit status."""
    words = program_apart(verb_first(arguments))
    as_json = wants_json(words)
    try:
        command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False, help_on_error=False)
    except CycloptsError as error:
        tell(_wrong_usage(error), as_json=as_json)
        return WRONG_USAGE

    def work() -> int:
        with writing():  # help is printed here
            result = command(*bound.args, **bound.kwargs)
        return (asyncio.run(result) if asyncio.iscoroutine(result) else result) or 0

    return run_to_end(work, as_json=as_json)


def verb_first(arguments: Sequence[str]) -> list[str]:
    """Options before the verb are moved behind it, as the parser wants them: `--context lab list`."""
    leading, rest = _options(arguments)
    if not leading or not rest or rest[0] == "--":
        return list(arguments)
    verbs = 2 if rest[0] in ("context", "client") else 1
    return [*rest[:verbs], *leading, *rest[verbs:]]


def program_apart(arguments: Sequence[str]) -> list[str]:
    """`start --name x ls -la` as `start --name x -- ls -la`: the first word that is no option begins the program."""
    if not arguments or arguments[0] not in PROGRAM_VERBS:
        return list(arguments)
    options, rest = _options(arguments[1:])
    return [arguments[0], *options, *([] if not rest or rest[0] == "--" else ["--"]), *rest]


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether `-o json` is among the options: known also when they cannot be parsed."""
    words = list(arguments)
    words = words[: words.index("--")] if "--" in words else words
    together = f" {' '.join(words)} "
    return any(f" {form}json " in together for form in ("-o ", "-o", "-o=", "--format ", "--format="))


def _options(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options at the beginning, with their values, and what follows them."""
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-", "--"):
        name = words[at]
        alone = "=" in name or name in SWITCHES or name in ASKING or (name[1] != "-" and len(name) > 2)
        at += 1 if alone else 2
    return list(words[:at]), list(words[at:])


def _wrong_usage(error: CycloptsError) -> InvalidArgument:
    if isinstance(error, UnusedCliTokensError):
        message = f"too many words: '{' '.join(error.unused_tokens or ())}'"
    else:
        message = _sentence(error)
    return InvalidArgument(message, hint=" ".join(("jobctl", *(error.command_chain or ()), "--help")))


def _sentence(error: CycloptsError) -> str:
    """The first sentence of what the parser says, as ours begin and end."""
    message = str(error).splitlines()[0].partition(" Available ")[0].strip().rstrip(".?")
    return message[:1].lower() + message[1:].replace(". Did", "; did").replace('"', "'")
