"""Settings of the audit service."""

from typing import Annotated

from chassis.settings import Address, KeyringSetting, NameList, PostgresUrl, ServiceSettings
from pydantic import AfterValidator, AnyHttpUrl, Field, SecretStr

from audit.domain.note import is_key_name, read_verifier_key


def _origin(text: str) -> str:
    if not is_key_name(text):
        raise ValueError("must be a name without spaces and plus signs, for example keys.example.com/audit")
    return text


def _verifier_keys(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        read_verifier_key(text)
    return texts


class Settings(ServiceSettings):
    """What audit is told."""

    keyferry_grpc_listen: Address = Field(description="Where gRPC is served, host:port.")
    database_url: PostgresUrl = Field(description="The service's own database, as its service role.")
    nats_url: str = Field(description="NATS servers, nats://host:port, separated by commas.")
    keyferry_audit_secret: KeyringSetting = Field(
        description="Keyring v1:<base64url of 32 bytes>,… that wraps the keys of persons and hides who they are."
    )
    keyferry_checkpoint_secret: KeyringSetting = Field(
        description="Keyring of Ed25519 seeds, v2:<base64url of 32 bytes>,v1:…; each signs every checkpoint."
    )
    keyferry_checkpoint_retired_keys: Annotated[NameList, AfterValidator(_verifier_keys)] = Field(
        default=(),
        description="Verifier keys (name+hash+base64) that have signed and sign no more, separated by commas.",
    )
    keyferry_log_origin: Annotated[str, AfterValidator(_origin)] = Field(
        description="Name of this log in its checkpoints, such as keys.example.com/audit; never given to another log."
    )
    keyferry_checkpoint_seconds: float = Field(
        default=60.0, ge=0.1, le=3600, description="Seconds between two looks whether a checkpoint is to be published."
    )
    r2_endpoint: AnyHttpUrl = Field(description="The object store's S3 endpoint.")
    r2_access_key_id: str = Field(min_length=1, description="Access key id at the object store.")
    r2_secret_access_key: SecretStr = Field(min_length=1, description="Secret access key at the object store.")
    keyferry_checkpoint_bucket: str = Field(
        min_length=3, description="The bucket of published checkpoints, which nobody may empty; theirs alone."
    )
