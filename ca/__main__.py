"""`python -m ca`: make an authority, issue and renew certificates, show what a certificate says.

Only reads arguments and prints; what a certificate holds is decided in `authority`, how it is stored in `files`.
"""

import argparse
import signal
import socket
import sys
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from ca import files
from ca.authority import AUTHORITY_LIFETIME, LEAF_LIFETIME, Authority, Identity, KeyType, public_key_sha256

DIRECTORY = Path(__file__).parent / "out"

# Not a secret. The file's mode protects the key, as it does in the .pem beside it; but several programs refuse to
# import a PKCS#12 file without a password. Give --p12-password-file where the file is to travel.
P12_PASSWORD = "jobworker"  # noqa: S105

_PURPOSES = {ExtendedKeyUsageOID.SERVER_AUTH: "a server", ExtendedKeyUsageOID.CLIENT_AUTH: "a client"}


def main() -> int:
    """Run one command; the exit status is 0, 1 after an error, or 2 after wrong usage."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends us, and nobody need be told
    try:
        arguments.run(arguments)
    except FileExistsError as error:
        return _fail(f"{error.filename} exists", "give --force to replace it")
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        hint = "python -m ca init makes an authority" if missing in ("ca.pem", "ca-key.pem") else ""
        return _fail(f"{error.filename} does not exist", hint)
    except OSError as error:
        return _fail(f"cannot use {error.filename}: {(error.strerror or str(error)).lower()}")
    except ValueError as error:
        return _fail(str(error))
    return 0


def init(arguments: argparse.Namespace) -> None:
    """Make the authority itself."""
    lifetime = timedelta(days=arguments.days or AUTHORITY_LIFETIME.days)
    authority = Authority.create(arguments.name, key_type=arguments.key_type, lifetime=lifetime)
    _told(files.save_authority(arguments.dir, authority, replace=arguments.force))


def issue_server(arguments: argparse.Namespace) -> None:
    """Issue the worker's own certificate, for this machine's names and those given."""
    authority = files.load_authority(arguments.dir)
    names = ["localhost", "127.0.0.1", "::1", socket.gethostname(), *arguments.san]
    identity = authority.issue_server(names, key_type=arguments.key_type, lifetime=_lifetime(arguments))
    _save(arguments, "server", identity, authority, replace=arguments.force)


def issue_client(arguments: argparse.Namespace) -> None:
    """Issue a client's certificate."""
    if arguments.name in files.RESERVED:
        raise ValueError(f"a client cannot be named {arguments.name!r}: that file is the authority's own")
    authority = files.load_authority(arguments.dir)
    identity = authority.issue_client(
        arguments.name, key_type=arguments.key_type, lifetime=_lifetime(arguments)
    )
    _save(arguments, arguments.name, identity, authority, replace=arguments.force)


def renew(arguments: argparse.Namespace) -> None:
    """Sign a certificate again with the key it has, so that it need not be registered again."""
    authority = files.load_authority(arguments.dir)
    old = files.load_identity(arguments.dir, arguments.name)
    identity = authority.renew(old, lifetime=_lifetime(arguments))
    _save(arguments, arguments.name, identity, authority, replace=True)


def show(arguments: argparse.Namespace) -> None:
    """Print what certificates say."""
    there = sorted(path for path in arguments.dir.glob("*.pem") if path.name != "ca-key.pem")
    if not (arguments.files or there):
        raise ValueError(f"no certificates are in {arguments.dir}")
    for path in arguments.files or there:
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"no PEM certificate is in {path}") from error
        print(f"{path}\n{describe(certificate)}")


def describe(certificate: x509.Certificate) -> str:
    """The lines a person needs: who, for what, under which names, until when, and the id a worker registers."""
    uses = [e.value for e in certificate.extensions if isinstance(e.value, x509.ExtendedKeyUsage)]
    names = [e.value for e in certificate.extensions if isinstance(e.value, x509.SubjectAlternativeName)]
    rows = {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "for": ", ".join(_PURPOSES.get(oid, oid.dotted_string) for use in uses for oid in use)
        or "an authority",
        "names": ", ".join(str(name.value) for alternative in names for name in alternative),
        "valid": f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
        "key": f"sha256:{public_key_sha256(certificate)}",
    }
    return "\n".join(f"  {label:8} {value}" for label, value in rows.items() if value)


def _save(
    arguments: argparse.Namespace, name: str, identity: Identity, authority: Authority, *, replace: bool
) -> None:
    given = arguments.p12_password_file
    password = given.read_text().rstrip("\n") if given else P12_PASSWORD
    saved = files.save_identity(
        arguments.dir, name, identity, authority=authority, password=password, replace=replace
    )
    _told(saved)


def _lifetime(arguments: argparse.Namespace) -> timedelta:
    return timedelta(days=arguments.days or LEAF_LIFETIME.days)


def _told(paths: list[Path]) -> None:
    for path in paths:
        print(f"wrote {path}")


def _fail(error: str, hint: str = "") -> int:
    print(f"error: {error}" + (f"\nhint: {hint}" if hint else ""), file=sys.stderr)
    return 1


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 36500):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days from 1 to 36500")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--dir", type=Path, default=DIRECTORY, help="where the files lie (%(default)s)")
    made = argparse.ArgumentParser(add_help=False, parents=[common])
    made.add_argument("--days", type=_days, help="how long it is valid")
    made.add_argument("--key-type", type=KeyType, choices=list(KeyType), default=KeyType.P256)
    made.add_argument("--force", action="store_true", help="replace what exists")
    leaf = argparse.ArgumentParser(add_help=False)
    leaf.add_argument("--p12-password-file", type=Path, help=f"default: the word {P12_PASSWORD!r}, no secret")

    parser = argparse.ArgumentParser(prog="python -m ca", description="certificates for jobworker")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    verb = verbs.add_parser("init", parents=[made], help="make the authority: ca.pem, ca-key.pem")
    verb.add_argument("--name", default="jobworker authority", help="its subject (%(default)s)")
    verb.set_defaults(run=init)

    kinds = verbs.add_parser("issue", help="issue a certificate").add_subparsers(
        required=True, metavar="KIND"
    )
    verb = kinds.add_parser("server", parents=[made, leaf], help="for a worker: server.pem, server.p12")
    verb.add_argument(
        "--san", action="append", default=[], help="one more host name or IP address; repeatable"
    )
    verb.set_defaults(run=issue_server)
    verb = kinds.add_parser("client", parents=[made, leaf], help="for a client: NAME.pem, NAME.p12")
    verb.add_argument("name")
    verb.set_defaults(run=issue_client)

    verb = verbs.add_parser("renew", parents=[common, leaf], help="sign NAME.pem again, keeping its key")
    verb.add_argument("name", help="a client, or server")
    verb.add_argument("--days", type=_days, help="how long it is valid")
    verb.set_defaults(run=renew)

    verb = verbs.add_parser("show", parents=[common], help="print what certificates say")
    verb.add_argument("files", nargs="*", type=Path)
    verb.set_defaults(run=show)
    return parser


if __name__ == "__main__":
    sys.exit(main())
