"""What the authority's certificates say, read back from their bytes."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.authority import Authority, Identity, KeyType, public_key_sha256


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


def usage(certificate: x509.Certificate) -> x509.KeyUsage:
    extension = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert extension.critical
    return extension.value


def purposes(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def names(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in found]


def test_an_authority_signs_certificates_and_nothing_else(authority: Authority) -> None:
    own = authority.certificate
    assert own.subject == own.issuer
    constraints = own.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert (usage(own).key_cert_sign, usage(own).crl_sign, usage(own).digital_signature) == (
        True,
        True,
        False,
    )
    own.verify_directly_issued_by(own)


@pytest.mark.parametrize("key_type", KeyType)
def test_leaves_are_for_one_purpose_and_name_their_signer(key_type: KeyType) -> None:
    authority = Authority.create(key_type=key_type)
    server = authority.issue_server(["localhost"], key_type=key_type).certificate
    client = authority.issue_client("alice", key_type=key_type).certificate
    assert purposes(server) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert purposes(client) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    signer = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    for leaf in (server, client):
        leaf.verify_directly_issued_by(authority.certificate)
        assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
        assert (usage(leaf).digital_signature, usage(leaf).key_cert_sign) == (True, False)
        by = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        assert (by.value.key_identifier, by.critical) == (signer.digest, False)


def test_keys_are_of_the_kind_asked_for(authority: Authority) -> None:
    assert isinstance(authority.key, ec.EllipticCurvePrivateKey)
    assert isinstance(authority.key.curve, ec.SECP256R1)
    mixed = authority.issue_client("alice", key_type=KeyType.ED25519)
    assert isinstance(mixed.key, ed25519.Ed25519PrivateKey)
    mixed.certificate.verify_directly_issued_by(authority.certificate)


def test_a_server_is_named_by_hosts_and_addresses_each_once(authority: Authority) -> None:
    server = authority.issue_server(["localhost", "127.0.0.1", "::1", "localhost", "*.example"])
    assert names(server.certificate) == ["localhost", "127.0.0.1", "::1", "*.example"]


@pytest.mark.parametrize(
    "bad", ["", "a b", "exämple", "-x", "x.", "..", "a\n", "a" * 64, "a." * 130 + "a", "1.2.3.4/8"]
)
def test_what_is_no_host_is_refused(authority: Authority, bad: str) -> None:
    with pytest.raises(ValueError, match="neither a host name nor an IP address"):
        authority.issue_server(["localhost", bad])


def test_a_server_without_a_name_is_refused(authority: Authority) -> None:
    with pytest.raises(ValueError, match="at least one name"):
        authority.issue_server([])


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "-a", "a b", "a\0", "ä", "a\n", "a" * 65])
def test_a_client_name_that_is_no_file_name_is_refused(authority: Authority, bad: str) -> None:
    with pytest.raises(ValueError, match="bad client name"):
        authority.issue_client(bad)


@given(name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True))
@settings(max_examples=25, deadline=None)
def test_every_good_name_is_the_subject_and_survives_pem(name: str) -> None:
    identity = Authority.create().issue_client(name)
    assert identity.certificate.subject.rfc4514_string() == f"CN={name}"
    read = Identity.from_pem(identity.pem)
    assert read.certificate == identity.certificate
    assert read.key.public_key() == identity.key.public_key()


def test_validity_starts_a_little_early_and_ends_when_told(authority: Authority) -> None:
    leaf = authority.issue_client("alice", lifetime=timedelta(days=2)).certificate
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(days=2)
    assert timedelta(minutes=4) < datetime.now(UTC) - leaf.not_valid_before_utc < timedelta(minutes=6)


def test_a_leaf_never_outlives_its_authority() -> None:
    short = Authority.create(lifetime=timedelta(days=1))
    leaf = short.issue_client("alice", lifetime=timedelta(days=9))
    assert leaf.certificate.not_valid_after_utc == short.certificate.not_valid_after_utc


def test_an_expired_authority_issues_nothing() -> None:
    past = datetime.now(UTC) - timedelta(days=9)
    expired = Authority.create(not_before=past, lifetime=timedelta(days=1))
    with pytest.raises(ValueError, match="expired"):
        expired.issue_client("alice")


def test_renewal_keeps_key_subject_names_and_purpose(authority: Authority) -> None:
    old = authority.issue_server(["localhost", "::1"], lifetime=timedelta(days=1))
    new = authority.renew(old)
    assert public_key_sha256(new.certificate) == public_key_sha256(old.certificate)
    assert new.certificate.subject == old.certificate.subject
    assert names(new.certificate) == names(old.certificate)
    assert purposes(new.certificate) == purposes(old.certificate)
    assert new.certificate.serial_number != old.certificate.serial_number
    assert new.certificate.not_valid_after_utc > old.certificate.not_valid_after_utc


def test_another_authority_does_not_renew() -> None:
    stranger = Authority.create("somebody else").issue_client("alice")
    with pytest.raises(ValueError, match="another authority"):
        Authority.create().renew(stranger)


def test_serial_numbers_are_positive_short_and_never_the_same(authority: Authority) -> None:
    serials = {authority.issue_client("alice").certificate.serial_number for _ in range(20)}
    assert len(serials) == 20
    assert all(0 < serial < 2**159 for serial in serials)  # RFC 5280: 20 octets, positive


@pytest.mark.parametrize("damage", ["no key", "no certificate", "another's key", "nothing"])
def test_damaged_pem_is_refused(authority: Authority, damage: str) -> None:
    mine, other = authority.issue_client("alice"), authority.issue_client("bob")
    pem = {
        "no key": mine.certificate_pem,
        "no certificate": mine.key_pem,
        "another's key": mine.certificate_pem + other.key_pem,
        "nothing": b"",
    }[damage]
    with pytest.raises(ValueError, match="private key"):
        Identity.from_pem(pem)


@pytest.mark.parametrize("key_type", KeyType)
def test_pkcs12_holds_key_certificate_and_authority(authority: Authority, key_type: KeyType) -> None:
    identity = authority.issue_client("alice", key_type=key_type)
    packed = identity.pkcs12("alice", password="pässword", authority=authority.certificate)
    key, certificate, more = pkcs12.load_key_and_certificates(packed, "pässword".encode())
    assert key is not None
    assert key.public_key() == identity.key.public_key()
    assert (certificate, more) == (identity.certificate, [authority.certificate])
    with pytest.raises(ValueError, match=r"(?i)password"):
        pkcs12.load_key_and_certificates(packed, b"wrong")
