"""Settings from the environment, read once at start, typed, and told by name when they are wrong."""

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from chassis.keyring import Keyring

OWN_PREFIX = "KEYFERRY_"
# Replicas of one service differ in these, and nothing that matters to anybody else does.
OF_ONE_REPLICA = ("_LISTEN", "_TRACE_FILE")
_USER_INFO = re.compile(r"//[^/@]*@")


class SettingsError(Exception):
    """One or more settings are missing or wrong. The message has one sentence for each and no value of a secret."""


def _listen_address(text: str) -> str:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 # the highest TCP port
        raise ValueError("must be host:port, for example 127.0.0.1:7001")
    return text


def _addresses(text: object) -> tuple[str, ...]:
    if isinstance(text, tuple):
        return text
    parts = tuple(part.strip() for part in str(text).split(",") if part.strip())
    if not parts:
        raise ValueError("must be one or more host:port, separated by commas")
    return tuple(_listen_address(part) for part in parts)


def _keyring(text: object) -> Keyring:
    return text if isinstance(text, Keyring) else Keyring.parse(str(text))


def _postgres_url(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("must be postgresql://user:password@host:port/database")
    return secret


def _name_list(text: object) -> tuple[str, ...]:
    if isinstance(text, tuple):
        return text
    return tuple(part.strip() for part in str(text).split(",") if part.strip())


Address = Annotated[str, AfterValidator(_listen_address)]
Addresses = Annotated[tuple[str, ...], PlainValidator(_addresses)]
KeyringSetting = Annotated[Keyring, PlainValidator(_keyring)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
NameList = Annotated[tuple[str, ...], BeforeValidator(_name_list)]


class _EnvironmentSource(PydanticBaseSettingsSource):
    """Reads `NAME`, or the file that `NAME_FILE` names. Lists stay text: each field parses its own."""

    def get_field_value(self, field: object, field_name: str) -> tuple[object, str, bool]:  # noqa: ARG002 # abstract in pydantic
        raise AssertionError("all values come from __call__")

    def __call__(self) -> dict[str, object]:
        values: dict[str, object] = {}
        for name, field in self.settings_cls.model_fields.items():
            variable = name.upper()
            path = os.environ.get(f"{variable}_FILE")
            if path is not None:
                if variable in os.environ:
                    raise SettingsError(f"{variable} and {variable}_FILE are both set; keep one of them")
                try:
                    values[name] = Path(path).read_text(encoding="utf-8").strip()
                except OSError as error:
                    raise SettingsError(f"{variable}_FILE names a file that cannot be read: {error.strerror}") from None
            elif os.environ.get(variable, "") != "" or (variable in os.environ and field.is_required()):
                values[name] = os.environ[variable]
        return values


class Settings(BaseSettings):
    """Settings of a program: a field `some_name` is the variable `SOME_NAME`, or the file `SOME_NAME_FILE` names."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 # pydantic passes it by keyword
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 # same
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 # same
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read only what was passed in and the environment."""
        return init_settings, _EnvironmentSource(settings_cls)

    @classmethod
    def variables(cls) -> Mapping[str, str]:
        """Return every environment variable of this class with its description."""
        return {name.upper(): field.description or "" for name, field in cls.model_fields.items()}

    @classmethod
    def load(cls) -> Self:
        """Read the environment.

        Raises SettingsError with a sentence for each setting that is missing, malformed or not declared.
        """
        faults = cls._unknown_variables()
        try:
            loaded = cls()
        except ValidationError as error:
            faults += [
                _sentence(fault["loc"], fault["type"], fault["msg"]) for fault in error.errors(include_input=False)
            ]
        if faults:
            raise SettingsError("\n".join(faults))
        return loaded

    @classmethod
    def _unknown_variables(cls) -> list[str]:
        return []


class ServiceSettings(Settings):
    """What every service is told. Each subclass adds its own."""

    keyferry_private_listen: Address = Field(
        default="127.0.0.1:0", description="Where /metrics, /livez and /readyz are served; never public."
    )
    keyferry_tls_dir: Path = Field(description="Folder with tls.crt, tls.key and ca.crt of this service's identity.")
    keyferry_log_level: str = Field(
        default="info", pattern="^(debug|info|warning|error)$", description="Lowest level logged."
    )
    keyferry_trace_file: Path | None = Field(default=None, description="File that takes finished spans as JSON lines.")
    keyferry_otlp_endpoint: str | None = Field(default=None, description="OTLP gRPC collector for traces, host:port.")
    keyferry_failpoints: str = Field(
        default="",
        description="Named faults for tests, name=action separated by semicolons, read at start; empty in production.",
    )
    keyferry_drain_seconds: float = Field(
        default=10.0,
        gt=0,
        le=300,
        description="How long requests in flight may take after SIGTERM, in seconds.",
    )

    def plain(self) -> dict[str, str]:
        """Return what may be shown to anybody, by variable: no secret, and of a keyring the names of its versions."""
        shown: dict[str, str] = {}
        for name in type(self).model_fields:
            variable, value = name.upper(), getattr(self, name)
            if isinstance(value, SecretStr) or variable.endswith(OF_ONE_REPLICA):
                continue
            if isinstance(value, Keyring):
                value = ",".join([value.active, *sorted(value.versions.keys() - {value.active})])
            shown[variable] = _USER_INFO.sub("//", str(value))
        return shown

    def digest(self) -> str:
        """Return a digest of what may be shown, in hex: the same settings, the same digest."""
        return hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def _unknown_variables(cls) -> list[str]:
        known = cls.variables()
        unknown = sorted(
            name
            for name in os.environ
            if name.startswith(OWN_PREFIX) and not {name, name.removesuffix("_FILE")} & known.keys()
        )
        return [f"{name} is not a setting of this service; remove it or mend its spelling" for name in unknown]


class DatabaseSettings(Settings):
    """What a migration is told. It runs beside a service's own environment, most of which is not its business."""

    database_url: PostgresUrl = Field(description="The database, as the role that owns it.")


class NatsSettings(Settings):
    """What the declaration of streams is told."""

    nats_url: str = Field(description="NATS servers, nats://host:port, separated by commas.")


def _sentence(location: tuple[int | str, ...], kind: str, message: str) -> str:
    name = str(location[0]).upper() if location else "the environment"
    if kind == "missing":
        return f"{name} is not set; set it, or {name}_FILE to the path of a file that holds it"
    return f"{name} is wrong: {message.removeprefix('Value error, ')}"


S = TypeVar("S", bound=Settings)


def load_or_exit(settings_class: type[S]) -> S:
    """Read the environment, or stop the process with exit status 2 and the sentences on standard error."""
    try:
        return settings_class.load()
    except SettingsError as error:
        _exit_with(str(error))


def _exit_with(sentences: str) -> NoReturn:
    sys.stderr.write(sentences + "\n")
    raise SystemExit(2)
