"""The limits and the ends of jobs once more, where cgroup v2 itself has the controllers."""

import pytest

from tests.supervisor.test_end import *  # noqa: F403
from tests.supervisor.test_limits import *  # noqa: F403

pytestmark = pytest.mark.v2
