"""What the tests share: a real worker, certificates, tiny job programs, and what this machine can do."""

from tests.harness.certificates import Certificates
from tests.harness.worker import Worker

__all__ = ["Certificates", "Worker"]
