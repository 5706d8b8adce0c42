"""What the documents repeat from the source is what the source says."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from jobctl import IoLimit, Job, Limits, Usage
from jobctl.cli.limits import LimitFlags
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


def test_every_limit_is_explained_as_option_and_as_field() -> None:
    text = (CHECKOUT / "docs/resources.md").read_text()
    options = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(LimitFlags)]
    fields = [
        *Limits.__dataclass_fields__,
        *(name for name in IoLimit.__dataclass_fields__ if name not in ("path", "device")),
    ]
    assert [option for option in options if f"`{option}" not in text and f"{option} " not in text] == []
    assert [name for name in fields if f"`{name}`" not in text] == []


def test_every_figure_of_use_is_explained() -> None:
    for document in ("docs/resources.md", "docs/on-disk.md"):
        text = (CHECKOUT / document).read_text()
        assert [name for name in Usage.__dataclass_fields__ if f"`{name}`" not in text] == []


def test_every_parameter_of_output_is_explained() -> None:
    text = (CHECKOUT / "docs/library.md").read_text()
    parameters = inspect.signature(Job.output).parameters
    assert [name for name in parameters if name != "self" and f"{name}=" not in text] == []
