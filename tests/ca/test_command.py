"""`python -m ca` and gen.sh as a person runs them, and OpenSSL's opinion of what they make."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ca import files

CHECKOUT = Path(__file__).parents[2]
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def run(*command: str | Path, status: int = 0) -> str:
    """Run a program in the checkout; what it said on both streams, once its exit status is the one expected."""
    done = subprocess.run(
        command,
        cwd=CHECKOUT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def ca(directory: Path, *arguments: str | Path, status: int = 0) -> str:
    return run(sys.executable, "-m", "ca", *arguments, "--dir", directory, status=status)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    ca(tmp_path, "init")
    return tmp_path


@needs_openssl
@pytest.mark.parametrize("key_type", ["p256", "ed25519"])
def test_openssl_accepts_every_certificate_and_opens_every_pkcs12(tmp_path: Path, key_type: str) -> None:
    ca(tmp_path, "init", "--key-type", key_type)
    ca(tmp_path, "issue", "server", "--key-type", key_type, "--san", "worker.example")
    ca(tmp_path, "issue", "client", "alice", "--key-type", key_type)
    verify: list[str | Path] = ["openssl", "verify", "-x509_strict", "-CAfile", tmp_path / "ca.pem"]
    for name, purpose in {"server": "sslserver", "alice": "sslclient"}.items():
        pem = tmp_path / f"{name}.pem"
        assert "OK" in run(*verify, "-purpose", purpose, pem)
        shown = run(
            "openssl", "pkcs12", "-in", pem.with_suffix(".p12"), "-passin", "pass:jobworker", "-nodes"
        )
        assert shown.count("BEGIN CERTIFICATE") == 2
        assert "PRIVATE KEY" in shown
    assert "OK" in run(*verify, "-verify_hostname", "worker.example", tmp_path / "server.pem")
    assert "mismatch" in run(*verify, "-verify_hostname", "other.example", tmp_path / "server.pem", status=2)
    assert "purpose" in run(*verify, "-purpose", "sslserver", tmp_path / "alice.pem", status=2)


@needs_openssl
def test_a_pkcs12_password_can_be_given_in_a_file(out: Path) -> None:
    (out / "password").write_text("s3cret\n")
    ca(out, "issue", "client", "alice", "--p12-password-file", out / "password")
    opens: list[str | Path] = ["openssl", "pkcs12", "-in", out / "alice.p12", "-noout", "-passin"]
    run(*opens, "pass:s3cret")
    run(*opens, "pass:jobworker", status=1)


def test_nothing_is_replaced_unless_forced(out: Path) -> None:
    ca(out, "issue", "client", "alice")
    before = {path: path.read_bytes() for path in out.iterdir()}
    for command in (["init"], ["issue", "client", "alice"]):
        said = ca(out, *command, status=1)
        assert said.startswith("error: ")
        assert "exists\nhint: give --force" in said
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    ca(out, "issue", "client", "alice", "--force")
    assert (out / "alice.pem").read_bytes() != before[out / "alice.pem"]


def test_renewing_keeps_the_key_and_needs_no_force(out: Path) -> None:
    ca(out, "issue", "client", "alice", "--days", "1")
    old = files.load_identity(out, "alice")
    ca(out, "renew", "alice")
    new = files.load_identity(out, "alice")
    assert new.key_pem == old.key_pem
    assert new.certificate.not_valid_after_utc > old.certificate.not_valid_after_utc


def test_show_tells_who_for_what_until_when(out: Path) -> None:
    ca(out, "issue", "server", "--san", "worker.example")
    ca(out, "issue", "client", "alice")
    said = ca(out, "show")
    assert "CN=alice" in said
    assert "a client" in said
    assert "localhost, 127.0.0.1, ::1, " in said
    assert said.count("sha256:") == 3
    assert "PRIVATE" not in said
    assert "CN=alice" in run(sys.executable, "-m", "ca", "show", out / "alice.pem")


@pytest.mark.parametrize("name", ["ca", "ca-key", "server"])
def test_no_client_takes_a_name_of_the_authoritys_files(out: Path, name: str) -> None:
    before = (out / "ca.pem").read_bytes()
    assert "cannot be named" in ca(out, "issue", "client", name, "--force", status=1)
    assert (out / "ca.pem").read_bytes() == before


def test_an_error_is_two_lines_and_no_traceback(tmp_path: Path) -> None:
    said = ca(tmp_path, "issue", "client", "alice", status=1)
    assert said == f"error: {tmp_path}/ca.pem does not exist\nhint: python -m ca init makes an authority\n"
    ca(tmp_path, "init")
    assert "bad client name '../x'" in ca(tmp_path, "issue", "client", "../x", status=1)
    assert "neither a host name" in ca(tmp_path, "issue", "server", "--san", "a b", status=1)
    assert "does not exist" in ca(tmp_path, "renew", "nobody", status=1)
    assert "ca.pem: not a certificate together with" in ca(tmp_path, "renew", "ca", status=1)
    (tmp_path / "torn.pem").write_text("torn")
    for path in ("torn.pem", "ca-key.pem"):
        said = ca(tmp_path, "show", tmp_path / path, status=1)
        assert f"error: no PEM certificate is in {tmp_path / path}" in said
    assert f"error: cannot use {tmp_path}: is a directory" in ca(tmp_path, "show", tmp_path, status=1)
    (tmp_path / "empty").mkdir()
    assert "error: no certificates are in" in ca(tmp_path / "empty", "show", status=1)
    assert "is no number of days" in ca(tmp_path, "issue", "client", "alice", "--days", "0", status=2)


def test_gen_sh_makes_a_set_once_and_then_keeps_it(tmp_path: Path) -> None:
    made = run("sh", "ca/gen.sh", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    leaves = {f"{name}.{kind}" for name in ("server", "alice", "bob") for kind in ("pem", "p12")}
    assert names == {"ca.pem", "ca-key.pem"} | leaves
    assert made.count("wrote ") == len(names)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    again = run("sh", "ca/gen.sh", tmp_path / "out")
    assert (again.count("kept "), again.count("wrote ")) == (4, 0)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_gen_sh_says_what_to_do_without_a_python_that_can(tmp_path: Path) -> None:
    shutil.copytree(CHECKOUT / "ca", tmp_path / "ca", ignore=shutil.ignore_patterns("out"))
    for tool in ("dirname", "mkdir"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    done = subprocess.run(
        ["/bin/sh", tmp_path / "ca/gen.sh"],
        env=os.environ | {"PATH": str(tmp_path)},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert "hint: 'make certs'" in done.stderr
