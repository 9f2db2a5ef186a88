import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from sandbox.pki import IDENTITIES, Identity, ensure_pki

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def certificate(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.certificate.read_bytes())


def test_an_identity_is_one_uri_its_name_and_this_machine(tmp_path: Path) -> None:
    identity = ensure_pki(tmp_path, ["vault"], now=NOW)["vault"]
    names = certificate(identity).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://keyferry/vault"]
    assert names.get_values_for_type(x509.DNSName) == ["vault", "localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_an_identity_may_serve_and_call_and_sign_nothing(tmp_path: Path) -> None:
    extensions = certificate(ensure_pki(tmp_path, ["edge"], now=NOW)["edge"]).extensions
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_every_identity_is_issued_by_the_one_authority(tmp_path: Path) -> None:
    identities = ensure_pki(tmp_path, now=NOW)
    assert set(identities) == set(IDENTITIES)
    authority = x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes())
    for identity in identities.values():
        certificate(identity).verify_directly_issued_by(authority)
        assert identity.authority.read_bytes() == (tmp_path / "ca.crt").read_bytes()


def test_private_keys_are_their_owners_only(tmp_path: Path) -> None:
    identity = ensure_pki(tmp_path, ["audit"], now=NOW)["audit"]
    for key in (identity.key, tmp_path / "ca.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_what_is_good_is_kept(tmp_path: Path) -> None:
    before = ensure_pki(tmp_path, ["vault"], now=NOW)["vault"].certificate.read_bytes()
    after = ensure_pki(tmp_path, ["vault"], now=NOW + timedelta(days=59))["vault"].certificate.read_bytes()
    assert after == before


def test_what_expires_soon_is_renewed_by_the_same_authority(tmp_path: Path) -> None:
    authority = (ensure_pki(tmp_path, ["vault"], now=NOW)["vault"].authority).read_bytes()
    later = NOW + timedelta(days=61)
    identity = ensure_pki(tmp_path, ["vault"], now=later)["vault"]
    assert certificate(identity).not_valid_after_utc > later + timedelta(days=80)
    assert identity.authority.read_bytes() == authority


def test_an_authority_that_would_not_outlive_its_identities_is_replaced_with_them(tmp_path: Path) -> None:
    before = ensure_pki(tmp_path, ["vault"], now=NOW)["vault"].authority.read_bytes()
    identity = ensure_pki(tmp_path, ["vault"], now=NOW + timedelta(days=3600))["vault"]
    assert identity.authority.read_bytes() != before
    certificate(identity).verify_directly_issued_by(x509.load_pem_x509_certificate(identity.authority.read_bytes()))


@pytest.mark.parametrize("damaged", ["tls.crt", "tls.key", "ca.crt"])
def test_damaged_files_are_made_anew(tmp_path: Path, damaged: str) -> None:
    identity = ensure_pki(tmp_path, ["vault"], now=NOW)["vault"]
    (identity.folder / damaged).write_text("not a certificate")
    renewed = ensure_pki(tmp_path, ["vault"], now=NOW)["vault"]
    certificate(renewed).verify_directly_issued_by(x509.load_pem_x509_certificate(renewed.authority.read_bytes()))


def test_a_key_of_another_identity_is_noticed(tmp_path: Path) -> None:
    identities = ensure_pki(tmp_path, ["vault", "audit"], now=NOW)
    identities["vault"].key.write_bytes(identities["audit"].key.read_bytes())
    before = identities["vault"].certificate.read_bytes()
    assert ensure_pki(tmp_path, ["vault"], now=NOW)["vault"].certificate.read_bytes() != before
