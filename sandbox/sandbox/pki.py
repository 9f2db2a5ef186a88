"""A certificate authority of our own and one identity for each service, kept on disk and renewed before they expire."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sandbox.files import PRIVATE, PUBLIC, write_atomically

IDENTITIES = ("edge", "fulfillment", "kinguin-gateway", "vault", "audit", "shop", "operator")

_AUTHORITY_LIFE = timedelta(days=3650)
_IDENTITY_LIFE = timedelta(days=90)
# Renewed at start with this much left, so that a sandbox left running for a while does not expire under way.
_RENEW_BEFORE = timedelta(days=30)
# A machine whose clock lags a little behind must still accept what was just made.
_BACKDATE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Identity:
    """Where the files of one identity lie, laid out as cert-manager does."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """The certificate, PEM."""
        return self.folder / "tls.crt"

    @property
    def key(self) -> Path:
        """Its private key, PEM, for its owner's eyes only."""
        return self.folder / "tls.key"

    @property
    def authority(self) -> Path:
        """The authority's certificate, PEM."""
        return self.folder / "ca.crt"


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure_pki(folder: Path, names: Iterable[str] = IDENTITIES, *, now: datetime | None = None) -> dict[str, Identity]:
    """Make what is missing, unreadable or about to expire; return the identities by name."""
    moment = now or datetime.now(UTC)
    authority = _load_authority(folder, moment) or _make_authority(folder, moment)
    identities = {name: Identity(folder / name) for name in names}
    for name, identity in identities.items():
        if not _is_good(identity, authority, moment):
            _make_identity(identity, name, authority, moment)
    return identities


def _load_authority(folder: Path, now: datetime) -> _Authority | None:
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    except (OSError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        return None
    # Everything it signs must fit into its own life.
    return _Authority(certificate, key) if now + _IDENTITY_LIFE < certificate.not_valid_after_utc else None


def _make_authority(folder: Path, now: datetime) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Keyferry sandbox")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_atomically(folder / "ca.key", _pem(key), mode=PRIVATE)
    write_atomically(folder / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM), mode=PUBLIC)
    return _Authority(certificate, key)


def _make_identity(identity: Identity, name: str, authority: _Authority, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _IDENTITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.UniformResourceIdentifier(f"spiffe://keyferry/{name}"),
                    x509.DNSName(name),
                    x509.DNSName("localhost"),
                    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                ]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    identity.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(identity.authority, authority.certificate.public_bytes(serialization.Encoding.PEM), mode=PUBLIC)
    write_atomically(identity.key, _pem(key), mode=PRIVATE)
    # Last: a certificate that is there has its key beside it.
    write_atomically(identity.certificate, certificate.public_bytes(serialization.Encoding.PEM), mode=PUBLIC)


def _is_good(identity: Identity, authority: _Authority, now: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
        key = serialization.load_pem_private_key(identity.key.read_bytes(), password=None)
        known = x509.load_pem_x509_certificate(identity.authority.read_bytes())
        certificate.verify_directly_issued_by(authority.certificate)
    except Exception:  # noqa: BLE001 # whatever is wrong with the files, new ones are the answer
        return False
    return (
        known == authority.certificate
        and key.public_key() == certificate.public_key()
        and certificate.not_valid_before_utc <= now
        and now + _RENEW_BEFORE < certificate.not_valid_after_utc
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
