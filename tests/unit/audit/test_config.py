import pytest
from audit.adapters.ed25519 import Ed25519Notary
from audit.config import Settings
from chassis.keyring import Keyring
from chassis.settings import SettingsError

SECRET = "v1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
CHECKPOINT_SECRET = "v1:gIGCg4SFhoeIiYqLjI2Oj5CRkpOUlZaXmJmam5ydnp8"
GOOD = {
    "KEYFERRY_TLS_DIR": "/etc/keyferry/tls",
    "KEYFERRY_GRPC_LISTEN": "0.0.0.0:7000",
    "DATABASE_URL": "postgresql://audit_service:secret-of-postgres@postgres/audit",
    "NATS_URL": "nats://nats:4222",
    "KEYFERRY_AUDIT_SECRET": SECRET,
    "KEYFERRY_CHECKPOINT_SECRET": CHECKPOINT_SECRET,
    "KEYFERRY_LOG_ORIGIN": "keys.example.com/audit",
    "KEYFERRY_CHECKPOINT_BUCKET": "checkpoints",
    "R2_ENDPOINT": "https://account.r2.cloudflarestorage.com",
    "R2_ACCESS_KEY_ID": "id",
    "R2_SECRET_ACCESS_KEY": "secret-of-r2",
}


def load(monkeypatch: pytest.MonkeyPatch, **changes: str) -> Settings:
    for name, value in (GOOD | changes).items():
        monkeypatch.setenv(name, value)
    return Settings.load()


def test_settings_are_read_and_no_secret_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch)
    assert settings.keyferry_checkpoint_seconds == 60
    told = repr(settings) + str(settings)
    for secret in (SECRET, CHECKPOINT_SECRET, "secret-of-postgres", "secret-of-r2"):
        assert (secret.partition(":")[2] or secret) not in told


def test_retired_keys_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    (key,) = Ed25519Notary("keys.example.com/audit", Keyring.parse(SECRET)).verifier_keys
    assert load(monkeypatch, KEYFERRY_CHECKPOINT_RETIRED_KEYS=f"{key}, {key}").keyferry_checkpoint_retired_keys == (
        key,
        key,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KEYFERRY_LOG_ORIGIN", "two words"),
        ("KEYFERRY_LOG_ORIGIN", "a+b"),
        ("KEYFERRY_CHECKPOINT_SECRET", "v1:short"),
        ("KEYFERRY_CHECKPOINT_SECONDS", "0"),
        ("KEYFERRY_CHECKPOINT_BUCKET", "x"),
        ("KEYFERRY_CHECKPOINT_RETIRED_KEYS", "name+hash"),
        ("R2_ENDPOINT", "here"),
    ],
    ids=["space", "plus", "weak", "pace", "bucket", "retired", "endpoint"],
)
def test_a_bad_setting_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is wrong: ") as raised:
        load(monkeypatch, **{name: value})
    assert "v1:short" not in str(raised.value)
