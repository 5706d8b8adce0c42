"""`jobctl client add | list | revoke`: for admins."""

from collections.abc import Callable
from pathlib import Path

from ca.authority import Authority
from tests.cli.conftest import Jobctl


def certificate(tmp_path: Path) -> tuple[str, bytes]:
    """A file with a certificate and its key, as `ca` writes it, of an authority of its own."""
    pem = Authority.create().issue_client("dave").pem
    (tmp_path / "dave.pem").write_bytes(pem)
    return str(tmp_path / "dave.pem"), pem


def test_a_client_comes_and_goes(as_client: Callable[[str], Jobctl], tmp_path: Path) -> None:
    root = as_client("root")
    path, _ = certificate(tmp_path)
    assert root.text("client", "add", "dave", "--certificate", path, "--role", "viewer") == ""
    listed = {one["id"]: one for one in root.json("client", "list")}
    assert listed["dave"]["role"] == "viewer"
    assert len(listed["dave"]["public_key_sha256"]) == 64
    assert {"root", "alice", "bob", "carol"} <= set(listed)
    (revoked,) = root.json("client", "revoke", "dave")
    assert revoked["revoked_at"]
    table = root.text("client", "list").splitlines()
    assert table[0].split("\t") == ["CLIENT", "ROLE", "RUNS AS", "REGISTERED", "REVOKED"]
    assert any(line.startswith("dave\tviewer\t") for line in table)


def test_the_key_stays_here() -> None:
    from jobctl.cli.client import public_part  # noqa: PLC0415

    pem = Authority.create().issue_client("dave").pem
    assert b"PRIVATE" in pem
    assert b"PRIVATE" not in public_part(pem)
    assert public_part(pem).startswith(b"-----BEGIN CERTIFICATE-----")
    assert public_part(b"\x30\x82der") == b"\x30\x82der"


def test_what_goes_wrong(as_client: Callable[[str], Jobctl], tmp_path: Path) -> None:
    root, alice = as_client("root"), as_client("alice")
    path, _ = certificate(tmp_path)
    (tmp_path / "empty.pem").write_text("")
    assert alice("client", "list").returncode == 125
    assert alice("client", "add", "x", "--certificate", path).returncode == 125
    assert root("client", "add", "alice", "--certificate", path).returncode == 125
    assert root("client", "add", "x", "--certificate", str(tmp_path / "none.pem")).returncode == 125
    assert root("client", "add", "x", "--certificate", str(tmp_path / "empty.pem")).returncode == 2
    assert root("client", "add", "x", "--certificate", path, "--role", "king").returncode == 2
    assert root("client", "add", "x").returncode == 2
    done = root("client", "revoke", "nobody")
    assert (done.returncode, done.stderr.splitlines()[0]) == (125, b"error: no client 'nobody'")
