"""Tiny programs for jobs, as argument lists. They need /bin/sh and coreutils only: a job's user may not reach our Python."""

Argv = list[str]


def sh(script: str, *arguments: str) -> Argv:
    """A shell script with its arguments."""
    return ["/bin/sh", "-c", script, "sh", *arguments]


def say(*, out: str = "", err: str = "", exit_code: int = 0) -> Argv:
    """Write to both streams and exit."""
    return sh('printf %s "$1"; printf %s "$2" >&2; exit "$3"', out, err, str(exit_code))


def fail(exit_code: int) -> Argv:
    """Exit with a code and say nothing."""
    return sh('exit "$1"', str(exit_code))


def die(signal: str) -> Argv:
    """End by a signal: TERM, KILL, SEGV…"""
    return sh('kill -s "$1" $$', signal)


def sleep(seconds: float = 3600) -> Argv:
    """Do nothing, in one process."""
    return ["/bin/sleep", str(seconds)]


def ready_then_sleep() -> Argv:
    """Say "ready" and go on for long: whoever has read the word knows that the program runs."""
    return sh("echo ready; exec sleep 3600")


def ignore_term() -> Argv:
    """Say "ready" and ignore SIGTERM, in every process of the job."""
    return sh("trap '' TERM; echo ready; while :; do sleep 3600; done")


def fork_sessions(count: int) -> Argv:
    """Start processes that each have a session of their own and ignore SIGTERM; say "ready" when all are there."""
    script = """
        trap '' TERM
        for i in $(seq "$1"); do setsid sh -c 'echo up; exec sleep 3600' & done | head -n "$1" >/dev/null
        echo ready
        while :; do sleep 3600; done"""
    return sh(script, str(count))


def grandchild_keeps_stdout() -> Argv:
    """Exit at once with status 5, leaving behind a process that holds both streams open."""
    return sh("sleep 3600 & echo parent; exit 5")


def close_streams_and_stay() -> Argv:
    """Say "bye", close both streams, and go on for long."""
    return sh("echo bye; exec >&- 2>&-; sleep 3600")


def write_bytes(count: int) -> Argv:
    """Write this many bytes of every value, with no newline at the end guaranteed, as fast as it can."""
    return sh('yes "$(printf "\\001\\377binary")" | head -c "$1"', str(count))


def lines(count: int, *, pause: float = 0) -> Argv:
    """Write numbered lines, with a pause in seconds after each."""
    return sh(
        'for i in $(seq "$1"); do echo "line $i"; [ "$2" = 0 ] || sleep "$2"; done', str(count), f"{pause:g}"
    )
