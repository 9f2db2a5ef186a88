from pathlib import Path

import pytest
from chassis.settings import SettingsError
from vault.config import Settings

from tests.unit.vault.fakes import a_secret

GOOD = {
    "KEYFERRY_GRPC_LISTEN": "127.0.0.1:7001",
    "KEYFERRY_TLS_DIR": "tls",
    "DATABASE_URL": "postgresql://vault_service:pass@db:5432/vault",
    "NATS_URL": "nats://nats:4222",
    "KEYFERRY_AUDIT_ADDRESS": "audit-1:7000,audit-2:7000",
    "KEY_ENCRYPTION_SECRET": f"v2:{a_secret(2)},v1:{a_secret(1)}",
    "KEYFERRY_DIGEST_SECRET": f"v1:{a_secret(3)}",
    "R2_ENDPOINT": "https://account.r2.cloudflarestorage.com",
    "R2_ACCESS_KEY_ID": "id",
    "R2_SECRET_ACCESS_KEY": "secret-of-the-store",
    "R2_BUCKET": "sealed-keys",
    "PUBLIC_URL": "https://keys.example",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.usefixtures("environment")
def test_it_reads_what_it_is_told() -> None:
    settings = Settings.load()
    assert settings.key_encryption_secret.active == "v2"
    assert list(settings.key_encryption_secret.versions) == ["v2", "v1"]
    assert settings.keyferry_audit_address == ("audit-1:7000", "audit-2:7000")
    for secret in ("secret-of-the-store", a_secret(1), a_secret(3), "pass"):
        assert secret not in repr(settings)


@pytest.mark.parametrize("name", GOOD)
def test_what_is_missing_is_named(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)
    with pytest.raises(SettingsError, match=f"{name} is not set"):
        Settings.load()


@pytest.mark.parametrize("name", ["KEY_ENCRYPTION_SECRET", "KEYFERRY_DIGEST_SECRET"])
@pytest.mark.parametrize(
    "value",
    ["", "password", "v1:c2hvcnQ", "v1:" + "A" * 43, f"v1:{a_secret(1)},v1:{a_secret(2)}", f"v1:{a_secret(1)}!"],
    ids=["empty", "no keyring", "short", "weak", "twice", "no base64url"],
)
def test_a_weak_or_broken_keyring_stops_it_without_showing_it(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name} is") as raised:
        Settings.load()
    assert a_secret(1) not in str(raised.value)
    assert "c2hvcnQ" not in str(raised.value)


def test_secrets_may_come_as_files(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "kek"
    path.write_text(f"v5:{a_secret(5)}\n")
    environment.delenv("KEY_ENCRYPTION_SECRET")
    environment.setenv("KEY_ENCRYPTION_SECRET_FILE", str(path))
    assert Settings.load().key_encryption_secret.active == "v5"
