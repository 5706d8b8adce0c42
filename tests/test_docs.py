"""What the documents repeat from the source is what the source says."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from jobctl import Job
from jobctl.cli.logs import LogFlags
from jobworker import lifecycle

CHECKOUT = Path(__file__).parents[1]
DOCUMENTS = [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md")]


def test_the_state_diagram_is_the_table() -> None:
    """`python -m jobworker.lifecycle` prints the text that belongs there."""
    drawn = re.findall(r"```mermaid\n(.*?)\n```", (CHECKOUT / "docs/architecture.md").read_text(), re.DOTALL)
    assert drawn == [lifecycle.diagram()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=[document.name for document in DOCUMENTS])
def test_every_file_a_document_names_is_there(document: Path) -> None:
    """Links to files, and paths in backquotes that begin with one of our folders."""
    text = document.read_text()
    linked = [document.parent / target for target in re.findall(r"\]\(([^)#:]+)\)", text)]
    named = [
        CHECKOUT / path
        for path in re.findall(r"`((?:api|ca|docs|jobctl|jobwire|jobworker|scripts|tests)/[^`\s*<]*)`", text)
    ]
    made = CHECKOUT / "ca/out"
    assert [path for path in linked + named if not path.exists() and made not in (path, *path.parents)] == []


def test_every_option_of_logs_is_explained() -> None:
    text = (CHECKOUT / "docs/cli.md").read_text()
    assert [field.name for field in dataclasses.fields(LogFlags) if f"`--{field.name}" not in text] == []


def test_every_parameter_of_output_is_explained() -> None:
    text = (CHECKOUT / "docs/library.md").read_text()
    parameters = inspect.signature(Job.output).parameters
    assert [name for name in parameters if name != "self" and f"{name}=" not in text] == []
