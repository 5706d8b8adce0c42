"""Who may import whom, and what must never be in the tree.

The rules are read off the source with ast, so that an import hidden in a function counts as well. A new module
falls under its package's rule without being named here.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
OURS = {"api", "bench", "ca", "generated", "jobctl", "jobwire", "jobworker", "tests"}
STANDARD = set(sys.stdlib_module_names) | {"_sha256", "_sha2"}  # the one of 3.11, the other from 3.12 on


def modules(*places: str) -> list[Path]:
    """The Python files at these places, each a file or a folder of the checkout; those not yet there are left out."""
    found = (CHECKOUT / place for place in places)
    return sorted(f for p in found for f in (p.rglob("*.py") if p.is_dir() else [p]) if f.is_file())


def named(path: Path) -> str:
    return ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Full names of all that a file imports; for `from x import y` both x and x.y, as y may be a module."""
    package = named(path).split(".") if path.name == "__init__.py" else named(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_bytes(), path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def within(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def broken(files: list[Path], *, forbidden: set[str]) -> list[str]:
    """`file imports name` for every import under a forbidden name."""
    return [
        f"{named(file)} imports {name}" for file in files for name in imports(file) if within(name, forbidden)
    ]


def foreign(files: list[Path], *, allowed: set[str]) -> list[str]:
    """`file imports name` for every import that is neither in the standard library nor under an allowed name."""
    return [
        f"{named(file)} imports {name}"
        for file in files
        for name in imports(file)
        if name.split(".")[0] not in STANDARD and not within(name, allowed) and name not in parents(allowed)
    ]


def python(program: str) -> "subprocess.CompletedProcess[str]":
    return run(sys.executable, "-c", program)


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=CHECKOUT, text=True, capture_output=True, timeout=60, check=False)


def parents(names: set[str]) -> set[str]:
    """`from jobworker import syscalls` also names jobworker, which is an empty module."""
    return {name.rpartition(".")[0] for name in names if "." in name}


ALONE = [
    ("jobworker", {"jobworker", "jobwire", "generated"}),
    ("jobctl", {"jobctl", "jobwire", "generated"}),
    ("jobwire", {"jobwire", "generated"}),
    ("ca", {"ca"}),
    ("bench", OURS - {"tests", "api"}),
]


@pytest.mark.parametrize(("package", "may"), ALONE, ids=[package for package, _ in ALONE])
def test_packages_import_only_what_lies_below_them(package: str, may: set[str]) -> None:
    assert broken(modules(package), forbidden=OURS - may) == []


def test_jobwire_stands_on_the_protocol_libraries_alone() -> None:
    assert (
        foreign(
            modules("jobwire"), allowed={"jobwire", "generated", "betterproto", "grpclib", "h2", "hyperframe"}
        )
        == []
    )


def test_the_authority_stands_on_cryptography_alone() -> None:
    assert foreign(modules("ca"), allowed={"ca", "cryptography"}) == []


def test_the_supervisor_and_what_it_imports_are_standard_library() -> None:
    below = {"jobworker.supervisor", "jobworker.outputindex", "jobworker.syscalls"}
    files = modules("jobworker/supervisor", "jobworker/syscalls.py", "jobworker/indexcheck.py")
    assert foreign(files, allowed=below) == []
    assert foreign(modules("jobworker/syscalls.py"), allowed=set()) == []
    assert (
        foreign(modules("jobworker/outputindex.py"), allowed={"jobworker.indexcheck"}) == []
    )  # as a command


def test_the_module_every_process_imports_is_empty() -> None:
    assert (CHECKOUT / "jobworker/__init__.py").read_bytes() == b""


def test_the_domain_knows_no_grpc() -> None:
    speakers = set(modules("jobworker/rpc", "jobworker/identity.py"))
    assert (
        broken(
            [f for f in modules("jobworker") if f not in speakers],
            forbidden={"grpclib", "h2", "betterproto.grpc"},
        )
        == []
    )


KEPT_TO = [
    ("sqlite3", ["jobworker/store"]),
    ("ctypes", ["jobworker/syscalls.py"]),
    ("cyclopts", ["jobworker/cli.py", "jobworker/cli", "jobctl/cli"]),
    ("rich", ["jobworker/cli.py", "jobworker/cli", "jobctl/cli"]),
    (
        "cryptography",
        ["ca", "jobworker/identity.py", "jobworker/rpc/clients.py", "jobworker/cli.py", "jobworker/cli"],
    ),
]


@pytest.mark.parametrize(("library", "places"), KEPT_TO, ids=[library for library, _ in KEPT_TO])
def test_a_library_is_kept_to_its_place(library: str, places: list[str]) -> None:
    elsewhere = set(modules("jobworker", "jobctl", "jobwire", "ca")) - set(modules(*places))
    assert broken(sorted(elsewhere), forbidden={library}) == []


def test_the_environment_is_read_only_where_settings_meet() -> None:
    readers = modules(
        "jobworker/settings.py", "jobworker/cli.py", "jobworker/cli", "jobctl/contexts.py", "jobctl/cli"
    )
    reading = [
        f"{named(file)}:{node.lineno}"
        for file in modules("jobworker", "jobctl", "jobwire")
        if file not in readers and named(file) != "jobworker.supervisor.options"  # which hands it on
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Attribute | ast.Name)
        and (node.attr if isinstance(node, ast.Attribute) else node.id) in ("environ", "environb", "getenv")
    ]
    assert reading == []


def test_the_library_does_not_know_its_command_line() -> None:
    library = set(modules("jobctl")) - set(modules("jobctl/cli"))
    assert broken(sorted(library), forbidden={"jobctl.cli"}) == []


def test_importing_the_library_loads_no_command_line() -> None:
    if modules("jobctl/__init__.py"):
        done = python(
            "import sys, jobctl; print(*sorted({'cyclopts', 'rich', 'jobctl.cli'} & set(sys.modules)))"
        )
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_the_librarys_public_names_are_exactly_what_is_there() -> None:
    """What a type checker sees (`from x import y as y`), what `__all__` lists, and what can be had, are one set."""
    for file in modules("jobctl/__init__.py"):
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
        imported = [alias for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names]
        seen = sorted(alias.name for alias in imported if alias.asname == alias.name)
        ask = "import jobctl; print(*sorted(n for n in jobctl.__all__ if hasattr(jobctl, n)), len(jobctl.__all__))"
        done = python(ask)
        assert (done.returncode, done.stdout.split(), done.stderr) == (0, [*seen, str(len(seen))], "")


@pytest.mark.skipif(not (CHECKOUT / ".git").exists(), reason="not a git checkout")
def test_no_private_key_is_in_the_tree() -> None:
    marker = "-----BEGIN [A-Z ]*" + "PRIVATE KEY-----"
    found = run("git", "grep", "-lE", "-e", marker)
    assert (found.returncode, found.stdout, found.stderr) == (1, "", "")
    listed = run("git", "ls-files", "*.p12", "*.key", "*-key.pem")
    assert (listed.returncode, listed.stdout) == (0, "")
