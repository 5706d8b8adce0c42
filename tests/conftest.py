"""Fixtures every test may ask for: certificates once a session, a shared worker, workers of a test's own."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from tests.harness import Certificates, Worker
from tests.harness.worker import register_everybody, running

# how long one example takes is the machine's business, and what else runs there
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

MakeWorker = Callable[..., Worker]

# A shell's background commands ignore SIGINT, and so would the programs under test.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of root (admin), alice and bob (operators), carol (viewer), mallory (registered nowhere)."""
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Path:
    """A state directory that nobody serves, in which all clients are registered: copied, not used."""
    state = tmp_path_factory.mktemp("registered") / "state"
    register_everybody(state, certificates)
    return state


@pytest.fixture
def make_worker(certificates: Certificates, registered: Path) -> Iterator[MakeWorker]:
    """Start workers that are the test's own: to be killed, restarted, or given other options."""
    with ExitStack() as stack:

        def make(*options: str) -> Worker:
            return stack.enter_context(running(Worker(certificates, options=options, like=registered)))

        yield make


@pytest.fixture(scope="module")
def worker(certificates: Certificates, registered: Path) -> Iterator[Worker]:
    """A worker that the tests of a module share: leave it running and count on nothing but your own jobs."""
    with running(Worker(certificates, like=registered)) as shared:
        yield shared
