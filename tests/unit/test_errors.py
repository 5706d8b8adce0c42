"""How errors speak."""

import re
from pathlib import Path

from jobworker.errors import JobworkerError


def test_every_error_is_one_clause() -> None:
    """Messages begin in lower case and end without a full stop."""
    folder = Path(__file__).parents[2] / "jobworker"
    raised = re.compile(
        rf"raise ({'|'.join(cls.__name__ for cls in JobworkerError.__subclasses__())})\(\s*f?\"([^\"]+)\""
    )
    for file in folder.glob("*.py"):
        for _, text in raised.findall(file.read_text()):
            assert not text[0].isupper(), text
            assert not text.endswith("."), text
