"""What a certificate of this project says, and for how long it says it.

Three nouns: an `Authority` signs; an `Identity` is a certificate together with its private key; a `KeyType` says of
which kind that key is. The recipe is RFC 5280's, and passes OpenSSL's strict verification.
Nothing here knows of files or command lines. The clock is read only where the caller gives no start.
"""

import enum
import hashlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

AUTHORITY_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=365)
CLOCK_SKEW = timedelta(minutes=5)  # two machines rarely agree on the minute a certificate was made in

_HOST_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([\w-]{0,61}\w)?(\.[A-Za-z0-9_]([\w-]{0,61}\w)?)*", re.ASCII)
_CLIENT_NAME = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
)  # also a file's name; X.520 allows 64 characters


class KeyType(enum.StrEnum):
    """The kinds of key this authority makes; P-256 is understood by everything that speaks TLS 1.3."""

    P256 = "p256"
    ED25519 = "ed25519"

    def generate(self) -> PrivateKey:
        """Make a new private key from the operating system's randomness."""
        if self is KeyType.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Identity:
    """A certificate and the private key that belongs to it."""

    certificate: x509.Certificate
    key: PrivateKey

    @classmethod
    def from_pem(cls, pem: bytes) -> "Identity":
        """Read a certificate and its key from one PEM text; ValueError if one is missing or they do not match."""
        try:
            key = load_pem_private_key(pem, password=None)
            certificate = x509.load_pem_x509_certificate(pem)
        except (TypeError, ValueError) as error:  # TypeError: the key is encrypted
            raise ValueError("not a certificate together with its unencrypted private key") from error
        if not isinstance(key, PrivateKey):
            raise ValueError("the private key is of a kind this authority does not make")
        if key.public_key() != certificate.public_key():
            raise ValueError("the private key does not belong to the certificate")
        return cls(certificate, key)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate alone: this is what others may see."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key alone, as unencrypted PKCS#8."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def pem(self) -> bytes:
        """Certificate and key in one text, as `ssl.SSLContext.load_cert_chain` takes it."""
        return self.certificate_pem + self.key_pem

    def pkcs12(self, name: str, *, password: str, authority: x509.Certificate) -> bytes:
        """Certificate, key and the authority's certificate as PKCS#12 (AES-256), as browsers and Java import it."""
        encryption = BestAvailableEncryption(password.encode())
        return pkcs12.serialize_key_and_certificates(
            name.encode(), self.key, self.certificate, [authority], encryption
        )


class Authority(Identity):
    """An identity whose certificate may sign others."""

    @classmethod
    def create(
        cls,
        name: str = "jobworker authority",
        *,
        key_type: KeyType = KeyType.P256,
        lifetime: timedelta = AUTHORITY_LIFETIME,
        not_before: datetime | None = None,
    ) -> "Authority":
        """Make a self-signed authority that signs leaf certificates only (path length 0)."""
        key = key_type.generate()
        subject = _subject(name)
        certificate = (
            _certificate(subject, key.public_key(), issuer=subject)
            .not_valid_before(start := not_before or _now() - CLOCK_SKEW)
            .not_valid_after(start + lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .sign(key, _digest(key))
        )
        return cls(certificate, key)

    def issue_server(
        self,
        names: Sequence[str],
        *,
        key_type: KeyType = KeyType.P256,
        lifetime: timedelta = LEAF_LIFETIME,
        not_before: datetime | None = None,
    ) -> Identity:
        """Make a server's identity for host names and IP addresses; ValueError if one is neither, or none is given."""
        if not names:
            raise ValueError("a server's certificate needs at least one name")
        key = key_type.generate()
        builder = _certificate(
            _subject("jobworker server"), key.public_key(), issuer=self.certificate.subject
        )
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in dict.fromkeys(names)])
        builder = builder.add_extension(alternatives, critical=False)
        return Identity(self._sign_leaf(builder, ExtendedKeyUsageOID.SERVER_AUTH, lifetime, not_before), key)

    def issue_client(
        self,
        name: str,
        *,
        key_type: KeyType = KeyType.P256,
        lifetime: timedelta = LEAF_LIFETIME,
        not_before: datetime | None = None,
    ) -> Identity:
        """Make a client's identity; ValueError if the name is not 1 to 64 of letters, digits, '.', '_' and '-'."""
        if not _CLIENT_NAME.fullmatch(name):
            raise ValueError(f"bad client name {name!r}: use up to 64 letters, digits, '.', '_' and '-'")
        key = key_type.generate()
        builder = _certificate(_subject(name), key.public_key(), issuer=self.certificate.subject)
        return Identity(self._sign_leaf(builder, ExtendedKeyUsageOID.CLIENT_AUTH, lifetime, not_before), key)

    def renew(
        self, old: Identity, *, lifetime: timedelta = LEAF_LIFETIME, not_before: datetime | None = None
    ) -> Identity:
        """Sign the same subject, names, use and key again; who trusts the public key keeps trusting it."""
        if old.certificate.issuer != self.certificate.subject:
            raise ValueError("this certificate was issued by another authority")
        extensions = old.certificate.extensions
        purpose = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        builder = _certificate(old.certificate.subject, old.key.public_key(), issuer=self.certificate.subject)
        for names in (e for e in extensions if isinstance(e.value, x509.SubjectAlternativeName)):
            builder = builder.add_extension(names.value, critical=names.critical)
        return Identity(self._sign_leaf(builder, next(iter(purpose)), lifetime, not_before), old.key)

    def _sign_leaf(
        self,
        builder: x509.CertificateBuilder,
        purpose: x509.ObjectIdentifier,
        lifetime: timedelta,
        not_before: datetime | None,
    ) -> x509.Certificate:
        """Finish a leaf: for signing handshakes only, for one purpose only, and never valid after its authority."""
        own_id = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        start = not_before or _now() - CLOCK_SKEW
        end = min(start + lifetime, self.certificate.not_valid_after_utc)
        if end <= start:
            raise ValueError("the authority's own certificate has expired")
        return (
            builder.not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own_id), critical=False
            )
            .sign(self.key, _digest(self.key))
        )


def public_key_sha256(certificate: x509.Certificate) -> str:
    """SHA-256 of the SubjectPublicKeyInfo in hex: it survives a renewal, so it is what a worker registers."""
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def _certificate(subject: x509.Name, public_key: PublicKey, *, issuer: x509.Name) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(name: str) -> x509.GeneralName:
    """An IP address where it reads as one, a host name otherwise; an international name must come as its A-label."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if len(name) > 253 or not _HOST_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is neither a host name nor an IP address")
    return x509.DNSName(name)


def _digest(key: PrivateKey) -> hashes.SHA256 | None:
    """Ed25519 brings its own digest (RFC 8410)."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
