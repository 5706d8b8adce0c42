"""One authority and one certificate for everybody the tests know, made once a session."""

from dataclasses import dataclass
from pathlib import Path

from ca import files
from ca.authority import Authority

CLIENTS = {"root": "admin", "alice": "operator", "bob": "operator", "carol": "viewer"}  # name → role
STRANGER = "mallory"  # has a certificate of our authority, but nobody registered it


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files in a directory: ca.pem, and NAME.pem with certificate and key for the server and each client."""

    directory: Path

    @classmethod
    def make(cls, directory: Path) -> "Certificates":
        """Write certificates for the server, every client and the stranger, and a whole other authority in other/."""
        for home, names in ((directory, [*CLIENTS, STRANGER]), (directory / "other", ["alice"])):
            authority = Authority.create()
            files.save_authority(home, authority)
            identities = {name: authority.issue_client(name) for name in names}
            identities["server"] = authority.issue_server(["localhost", "127.0.0.1", "::1"])
            for name, identity in identities.items():
                files.write_new(home / f"{name}.pem", identity.pem, mode=0o600)
        return cls(directory)

    @property
    def authority(self) -> Path:
        """The certificate that both sides trust."""
        return self.directory / "ca.pem"

    @property
    def other(self) -> "Certificates":
        """Certificates of an authority that the worker does not trust."""
        return Certificates(self.directory / "other")

    def of(self, name: str) -> Path:
        """The certificate and key of the server or a client."""
        return self.directory / f"{name}.pem"
