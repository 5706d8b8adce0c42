"""What a PEM file of ours lacks, in words: OpenSSL only says that there is something it cannot read.

Asked when a certificate could not be loaded, by both ends. What is wrong with what is there, OpenSSL tells.
"""

from os import PathLike


def missing(cert: str | PathLike[str], key: str | PathLike[str] | None = None) -> str:
    """ "no private key in it"; "" when nothing is missing or a file cannot be read. Without `key` both are in `cert`."""
    try:
        if b"-----BEGIN CERTIFICATE-----" not in _content(cert):
            return "no PEM certificate in it"
        if b"PRIVATE KEY-----" not in _content(key or cert):
            return f"no PEM private key in {key}" if key else "no private key in it"
    except OSError:
        pass
    return ""


def _content(path: str | PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read()
