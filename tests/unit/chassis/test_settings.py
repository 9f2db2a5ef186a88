import base64
import hashlib
import os
from pathlib import Path

import pytest
from chassis.secret import SecretBytes
from chassis.settings import (
    Address,
    Addresses,
    KeyringSetting,
    NameList,
    PostgresUrl,
    ServiceSettings,
    SettingsError,
    load_or_exit,
)
from pydantic import Field

SECRET = base64.urlsafe_b64encode(bytes(range(32))).decode()
OTHER_SECRET = base64.urlsafe_b64encode(hashlib.sha256(b"other").digest()).decode()


class ExampleSettings(ServiceSettings):
    keyferry_listen: Address = Field(description="An address.")
    keyferry_peers: Addresses = Field(default=("peer:1",), description="Several.")
    keyferry_secret: KeyringSetting = Field(description="A keyring.")
    keyferry_names: NameList = Field(default=(), description="Names.")
    database_url: PostgresUrl = Field(description="A database.")


GOOD = {
    "KEYFERRY_TLS_DIR": "/tls",
    "KEYFERRY_LISTEN": "127.0.0.1:7001",
    "KEYFERRY_SECRET": f"v1:{SECRET}",
    "DATABASE_URL": "postgresql://user:hunter2@db:5432/example",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith("KEYFERRY_") or name in {"DATABASE_URL", "DATABASE_URL_FILE"}:
            monkeypatch.delenv(name)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def sentences() -> list[str]:
    with pytest.raises(SettingsError) as raised:
        ExampleSettings.load()
    return str(raised.value).splitlines()


def test_a_complete_environment_is_read(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("KEYFERRY_PEERS", "a:1, b:2")
    environment.setenv("KEYFERRY_NAMES", "one,two, ,three")
    settings = ExampleSettings.load()
    assert settings.keyferry_tls_dir == Path("/tls")
    assert settings.keyferry_peers == ("a:1", "b:2")
    assert settings.keyferry_names == ("one", "two", "three")
    assert settings.keyferry_secret.active == "v1"
    assert settings.keyferry_secret.versions["v1"] == SecretBytes(bytes(range(32)))
    assert settings.keyferry_log_level == "info"
    assert settings.database_url.get_secret_value() == GOOD["DATABASE_URL"]


def test_secrets_do_not_print() -> None:
    settings = ExampleSettings.load()
    for text in (repr(settings), str(settings), repr(dict(settings))):
        assert "hunter2" not in text
        assert SECRET[:16] not in text


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_setting_is_named(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)
    assert sentences() == [f"{name} is not set; set it, or {name}_FILE to the path of a file that holds it"]


@pytest.mark.parametrize("name", GOOD)
def test_a_setting_may_stand_in_a_file(environment: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    file = tmp_path / "secret"
    file.write_text(GOOD[name] + "\n")
    environment.delenv(name)
    environment.setenv(f"{name}_FILE", str(file))
    loaded = ExampleSettings.load()
    environment.delenv(f"{name}_FILE")
    environment.setenv(name, GOOD[name])
    assert loaded == ExampleSettings.load()


def test_a_setting_and_its_file_at_once_are_refused(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("DATABASE_URL_FILE", str(tmp_path / "x"))
    assert sentences() == ["DATABASE_URL and DATABASE_URL_FILE are both set; keep one of them"]


def test_a_file_that_is_not_there_is_named(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.delenv("DATABASE_URL")
    environment.setenv("DATABASE_URL_FILE", str(tmp_path / "missing"))
    (sentence,) = sentences()
    assert sentence.startswith("DATABASE_URL_FILE names a file that cannot be read")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KEYFERRY_LISTEN", "7001"),
        ("KEYFERRY_LISTEN", ":7001"),
        ("KEYFERRY_LISTEN", "localhost:99999"),
        ("KEYFERRY_LISTEN", "localhost:http"),
        ("KEYFERRY_PEERS", ","),
        ("KEYFERRY_PEERS", "a:1,b"),
        ("KEYFERRY_SECRET", "hunter2"),
        ("KEYFERRY_SECRET", "v1:hunter2"),
        ("KEYFERRY_SECRET", "v1:" + "A" * 43),
        ("DATABASE_URL", "mysql://user:hunter2@db/example"),
        ("KEYFERRY_LOG_LEVEL", "loud"),
        ("KEYFERRY_DRAIN_SECONDS", "0"),
        ("KEYFERRY_DRAIN_SECONDS", "soon"),
    ],
)
def test_a_wrong_value_is_told_by_name_and_never_repeated(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)
    (sentence,) = sentences()
    assert sentence.startswith(f"{name} is wrong: ")
    assert "hunter2" not in sentence


def test_an_undeclared_setting_of_ours_stops_the_service(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("KEYFERRY_LISTN", "127.0.0.1:1")
    environment.delenv("KEYFERRY_TLS_DIR")
    assert sentences() == [
        "KEYFERRY_LISTN is not a setting of this service; remove it or mend its spelling",
        "KEYFERRY_TLS_DIR is not set; set it, or KEYFERRY_TLS_DIR_FILE to the path of a file that holds it",
    ]


def test_an_empty_optional_setting_is_its_default(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("KEYFERRY_PEERS", "")
    environment.setenv("KEYFERRY_TRACE_FILE", "")
    assert ExampleSettings.load().keyferry_peers == ("peer:1",)
    assert ExampleSettings.load().keyferry_trace_file is None


def test_settings_cannot_be_changed_and_every_one_is_described() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ExampleSettings.load().keyferry_log_level = "debug"  # the point
    assert all(ExampleSettings.variables().values())


def test_a_wrong_environment_ends_the_process_with_the_sentences(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.delenv("DATABASE_URL")
    with pytest.raises(SystemExit) as raised:
        load_or_exit(ExampleSettings)
    assert raised.value.code == 2
    assert capsys.readouterr().err.startswith("DATABASE_URL is not set")


def test_what_may_be_shown_holds_no_secret_and_nothing_of_one_replica(environment: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        environment.setenv(name, value)
    environment.setenv("KEYFERRY_SECRET", f"v2:{OTHER_SECRET},v1:{SECRET}")
    environment.setenv("KEYFERRY_PEERS", "nats://user:hunter2@peer:1")
    environment.setenv("KEYFERRY_TRACE_FILE", "/var/spans")
    settings = ExampleSettings.load()
    shown = settings.plain()
    assert shown["KEYFERRY_SECRET"] == "v2,v1"
    assert shown["KEYFERRY_PEERS"] == "('nats://peer:1',)"
    assert "DATABASE_URL" not in shown
    assert not [name for name in shown if name.endswith(("_LISTEN", "_TRACE_FILE"))]
    assert not [text for text in (SECRET, OTHER_SECRET, "hunter2") if text in str(shown)]


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"KEYFERRY_LISTEN": "127.0.0.1:7002"}, False),
        ({"DATABASE_URL": "postgresql://user:hunter3@db:5432/example"}, False),
        ({"KEYFERRY_NAMES": "a"}, True),
        ({"KEYFERRY_SECRET": f"v2:{SECRET}"}, True),
        ({"KEYFERRY_FAILPOINTS": "a.before_b=crash"}, True),
    ],
    ids=["listen", "password", "names", "version", "failpoints"],
)
def test_a_digest_differs_where_what_may_be_shown_does(
    environment: pytest.MonkeyPatch, change: dict[str, str], *, differs: bool
) -> None:
    for name, value in GOOD.items():
        environment.setenv(name, value)
    before = ExampleSettings.load().digest()
    for name, value in change.items():
        environment.setenv(name, value)
    assert (ExampleSettings.load().digest() != before) is differs
