"""The network between a worker and its clients is gone, without a word to either, and comes back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import Certificates

CHECKOUT = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds
NOTICED = 90.0  # seconds; the kernel is told to take 60


def may_have_a_network() -> bool:
    try:
        return not subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not may_have_a_network(), reason="needs a network of its own: unshare --net")
def test_both_ends_let_go_and_followers_go_on_where_they_were(certificates: Certificates) -> None:
    command = [sys.executable, "-m", "tests.harness.vanishing", str(certificates.directory)]
    done = subprocess.run(
        ["unshare", "--net", *command], cwd=CHECKOUT, stdout=subprocess.PIPE, timeout=PATIENCE, check=True
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert max(told["gone"]) < NOTICED
    *numbers, last = told["output"].split()
    assert last == "last"
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    assert len(numbers) > 10 * NOTICED / 3, "nothing was written while the network was gone"
