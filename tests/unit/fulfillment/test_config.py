import pytest
from chassis.settings import SettingsError
from fulfillment.config import Settings

GOOD = {
    "KEYFERRY_GRPC_LISTEN": "127.0.0.1:7001",
    "KEYFERRY_TLS_DIR": "tls",
    "DATABASE_URL": "postgresql://fulfillment_service:pass@db:5432/fulfillment",
    "NATS_URL": "nats://nats:4222",
    "KEYFERRY_KINGUIN_ADDRESS": "kinguin-1:7000,kinguin-2:7000",
    "KEYFERRY_VAULT_ADDRESS": "vault:7000",
    "SMTP_URL": "smtps://user:word-of-the-mail@mail.example:465",
    "KEYFERRY_MAIL_FROM": "Keys <keys@shop.example>",
    "PUBLIC_URL": "https://shop.example",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.usefixtures("environment")
def test_it_reads_what_it_is_told_and_shows_no_secret() -> None:
    settings = Settings.load()
    assert settings.keyferry_kinguin_address == ("kinguin-1:7000", "kinguin-2:7000")
    assert str(settings.public_url) == "https://shop.example/"
    assert "pass" not in repr(settings)
    assert "word-of-the-mail" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SMTP_URL", "http://mail.example"),
        ("SMTP_URL", "smtp://:25"),
        ("SMTP_URL", "mail.example:25"),
        ("KEYFERRY_MAIL_FROM", "nobody"),
        ("KEYFERRY_MAIL_FROM", "Keys <keys@shop.example>\r\nBcc: eve@example.com"),
        ("PUBLIC_URL", "shop.example"),
        ("DATABASE_URL", "mysql://db/fulfillment"),
    ],
)
def test_a_malformed_setting_is_named(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as raised:
        Settings.load()
    assert value not in str(raised.value)


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_setting_is_named(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)
    with pytest.raises(SettingsError, match=f"{name} is not set"):
        Settings.load()
