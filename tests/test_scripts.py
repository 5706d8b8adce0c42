"""The project's own checks, tried on small repositories where the right answer is known."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    **{
        f"GIT_{who}_{what}": "tests@example.invalid"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    },
}

pytestmark = [
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
    pytest.mark.skipif(shutil.which("buf", path=ENVIRONMENT["PATH"]) is None, reason="buf is not installed"),
]

PROTO = 'syntax = "proto3";\npackage thing.v1;\nmessage Thing {\n  string name = 1;\n}\n'
WIDER = PROTO.replace("}", "  string colour = 2;\n}")
BROKEN = PROTO.replace("string", "int32")


class Repository:
    """A checkout with one API file and the script under test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.proto = directory / "api/thing/v1/thing.proto"
        self.proto.parent.mkdir(parents=True)
        (directory / "scripts").mkdir()
        shutil.copy(CHECKOUT / "scripts/breaking", directory / "scripts")
        shutil.copy(CHECKOUT / "buf.yaml", directory)
        self.git("init", "-q")
        self.commit(PROTO)

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.directory, env=ENVIRONMENT, check=True, timeout=60)

    def commit(self, text: str) -> None:
        self.proto.write_text(text)
        self.git("add", ".")
        self.git("commit", "-q", "--allow-empty", "-m", "change")

    def check(self) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["scripts/breaking"], cwd=self.directory, env=ENVIRONMENT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def test_one_committed_version_has_nothing_to_be_compared_with(repository: Repository) -> None:
    checked = repository.check()
    assert (checked.returncode, "nothing to compare" in checked.stdout) == (0, True)


def test_an_uncommitted_break_fails_even_after_the_first_version(repository: Repository) -> None:
    repository.proto.write_text(BROKEN)
    checked = repository.check()
    assert checked.returncode != 0
    assert "changed type" in checked.stdout


def test_an_uncommitted_addition_passes(repository: Repository) -> None:
    repository.proto.write_text(WIDER)
    checked = repository.check()
    assert (checked.returncode, "comparing with" in checked.stdout) == (0, True)


def test_a_committed_break_fails_and_other_commits_do_not_hide_it(repository: Repository) -> None:
    repository.commit(BROKEN)
    (repository.directory / "other").write_text("not the API")
    repository.commit(BROKEN)
    assert repository.check().returncode != 0


def test_a_break_since_the_last_release_fails_however_many_commits_ago(repository: Repository) -> None:
    repository.git("tag", "v0.1.0")
    repository.commit(BROKEN)
    repository.commit(f"{BROKEN}// a remark\n")
    assert repository.check().returncode != 0


def test_a_new_file_that_git_does_not_know_yet_counts_as_a_change(repository: Repository) -> None:
    repository.commit(WIDER)
    (repository.proto.parent / "new.proto").write_text(PROTO.replace("Thing", "Other"))
    repository.proto.write_text(WIDER)
    assert repository.check().returncode == 0


def test_a_shallow_clone_passes_and_says_that_it_knows_no_earlier_version(
    repository: Repository, tmp_path: Path
) -> None:
    repository.commit(BROKEN)
    shallow = tmp_path / "shallow"
    repository.git("clone", "-q", "--depth=1", f"file://{repository.directory}", str(shallow))
    repository.directory = shallow
    checked = repository.check()
    assert (checked.returncode, "nothing to compare" in checked.stdout) == (0, True)


def test_without_git_there_is_nothing_to_compare_with(repository: Repository) -> None:
    shutil.rmtree(repository.directory / ".git")
    checked = repository.check()
    assert (checked.returncode, "not a git checkout" in checked.stdout) == (0, True)
