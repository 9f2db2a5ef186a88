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


@pytest.mark.usefixtures("environment")
def test_the_keyring_wraps_unless_it_is_told_otherwise() -> None:
    settings = Settings.load()
    assert (settings.keyferry_kek, settings.keyferry_transit_address) == ("keyring", None)


TRANSIT = {
    "KEYFERRY_KEK": "transit",
    "KEYFERRY_TRANSIT_ADDRESS": "https://openbao:8200",
    "KEYFERRY_TRANSIT_TOKEN": "s.token-of-transit",
}


def test_transit_is_told_where_it_is_and_its_token_does_not_print(environment: pytest.MonkeyPatch) -> None:
    for name, value in TRANSIT.items():
        environment.setenv(name, value)
    settings = Settings.load()
    assert str(settings.keyferry_transit_address) == "https://openbao:8200/"
    assert (settings.keyferry_transit_mount, settings.keyferry_transit_key) == ("transit", "keyferry")
    assert "token-of-transit" not in repr(settings)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"KEYFERRY_TRANSIT_ADDRESS": ""}, "KEYFERRY_TRANSIT_ADDRESS is needed", id="no address"),
        pytest.param({"KEYFERRY_TRANSIT_TOKEN": ""}, "KEYFERRY_TRANSIT_TOKEN is not set", id="no token"),
        pytest.param({"KEYFERRY_TRANSIT_ADDRESS": "http://openbao:8200"}, "must be https", id="no TLS"),
        pytest.param({"KEYFERRY_TRANSIT_ADDRESS": "openbao"}, "KEYFERRY_TRANSIT_ADDRESS is wrong", id="no URL"),
        pytest.param({"KEYFERRY_TRANSIT_KEY": "a/b"}, "KEYFERRY_TRANSIT_KEY is wrong", id="no name of a key"),
        pytest.param({"KEYFERRY_TRANSIT_MOUNT": "a//b"}, "KEYFERRY_TRANSIT_MOUNT is wrong", id="no mount"),
        pytest.param({"KEYFERRY_KEK": "hsm"}, "KEYFERRY_KEK is wrong", id="nobody we know"),
    ],
)
def test_a_transit_that_cannot_be_is_told_by_its_setting(
    environment: pytest.MonkeyPatch, changes: dict[str, str], says: str
) -> None:
    for name, value in {**TRANSIT, **changes}.items():
        environment.setenv(name, value)
    with pytest.raises(SettingsError, match=says) as raised:
        Settings.load()
    assert "token-of-transit" not in str(raised.value)


def test_transit_on_this_machine_needs_no_tls(environment: pytest.MonkeyPatch) -> None:
    for name, value in {**TRANSIT, "KEYFERRY_TRANSIT_ADDRESS": "http://127.0.0.1:8200"}.items():
        environment.setenv(name, value)
    assert Settings.load().keyferry_kek == "transit"


def test_secrets_may_come_as_files(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "kek"
    path.write_text(f"v5:{a_secret(5)}\n")
    environment.delenv("KEY_ENCRYPTION_SECRET")
    environment.setenv("KEY_ENCRYPTION_SECRET_FILE", str(path))
    assert Settings.load().key_encryption_secret.active == "v5"


@pytest.mark.parametrize(("opened", "unopened"), [("30", "29"), ("5000", None)], ids=["fewer", "fewer by default"])
def test_what_nobody_opened_is_not_kept_for_less_long(
    environment: pytest.MonkeyPatch, opened: str, unopened: str | None
) -> None:
    environment.setenv("KEYFERRY_RETENTION_DAYS", opened)
    if unopened is not None:
        environment.setenv("KEYFERRY_UNOPENED_RETENTION_DAYS", unopened)
    with pytest.raises(SettingsError, match="KEYFERRY_UNOPENED_RETENTION_DAYS is wrong: must not be fewer than"):
        Settings.load()


@pytest.mark.usefixtures("environment")
def test_keys_are_kept_for_a_year_and_unopened_ones_for_four() -> None:
    retention = Settings.load().retention()
    assert (retention.opened.days, retention.unopened.days) == (365, 1461)
