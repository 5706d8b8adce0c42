"""The API server: start, ready, drain, stop.

Decides the order in which the address, the parts behind it and the edge come up and go down, and what signals mean:
SIGTERM and SIGINT drain (a second one does not wait), SIGHUP reads the certificates again. The address is bound
first, and served only once everything is known. How those parts are put together is not known here, nor what a
request means.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import ssl
from collections.abc import Callable

import uvloop

from jobwire import __version__
from jobworker.domain import Domain, open_domain
from jobworker.errors import FailedPrecondition, JobworkerError
from jobworker.identity import reload_context, server_context
from jobworker.rpc.edge import BACKLOG, Edge, unless
from jobworker.settings import Settings
from jobworker.settingvalues import Address

log = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """`serve` on an event loop of its own, the fast one."""
    uvloop.run(serve(settings))


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT; JobworkerError when it cannot begin."""
    context = server_context(cert=settings.cert, key=settings.key, client_ca=settings.client_ca)
    with listen(settings.listen) as listener:
        async with open_domain(settings) as domain:
            _allow_many_files()
            edge = Edge(domain, settings)
            signals = _Signals(reload=lambda: _reload(context, settings))
            await edge.start(listener, context)
            with contextlib.suppress(OSError):  # that nobody hears it is no reason not to serve
                os.write(1, f"{_ready(listener, settings, domain)}\n".encode())
            await signals.stop.wait()
            edge.refuse()
            if settings.stop_jobs:
                await unless(signals.hurry, domain.jobs.stop_all())
            await edge.drain(seconds=settings.drain_seconds, hurry=signals.hurry)


class _Signals:
    """What the operator asks for: `stop`, then `hurry`."""

    def __init__(self, *, reload: Callable[[], None]) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, reload)

    def _on_stop(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()


def listen(address: Address) -> socket.socket:
    """A socket bound to the address; FailedPrecondition says why there is none."""
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = str(error.strerror)
        if error.errno is not None and error.errno > 0:  # else it is one of getaddrinfo's
            reason = os.strerror(error.errno)
        raise FailedPrecondition(
            f"cannot listen on {address}: {reason.lower()}", hint="give another --listen HOST:PORT"
        ) from error


def _reload(context: ssl.SSLContext, settings: Settings) -> None:
    try:
        reload_context(context, cert=settings.cert, key=settings.key, client_ca=settings.client_ca)
    except JobworkerError as error:
        log.error("%s; going on with the certificates as they were", error)
    else:
        log.warning("certificates read again; new connections use them")


def _allow_many_files() -> None:
    """Each connection and each followed job needs descriptors; the soft limit is usually 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _ready(listener: socket.socket, settings: Settings, domain: Domain) -> str:
    host, port = listener.getsockname()[:2]
    users = "one uid per client" if os.geteuid() == 0 else "jobs run as the worker's own user"
    return (
        f"jobworker {__version__} serving on {Address(host, port)}, state {settings.state}, "
        f"cgroups: {_cgroups(domain)}, {users}"
    )


def _cgroups(domain: Domain) -> str:
    assert domain.link.welcome is not None
    cgroup = domain.link.welcome["cgroup"]
    places: dict[str, list[str]] = {}
    for controller, version in cgroup["controllers"].items():
        places.setdefault(version, []).append(controller)
    parts = [f"{', '.join(names)} on {version}" for version, names in sorted(places.items())]
    return f"{cgroup['mode']} ({'; '.join(parts) or 'no controllers'})"
