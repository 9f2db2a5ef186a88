"""What vault is told."""

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from chassis.settings import Address, Addresses, KeyringSetting, PostgresUrl, ServiceSettings
from pydantic import AnyHttpUrl, Field, SecretStr, ValidationInfo, field_validator, model_validator

from vault.domain.delivery import MOST_RELEASES_KEPT
from vault.domain.retention import Retention

_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")


class Settings(ServiceSettings):
    """Settings of vault."""

    keyferry_grpc_listen: Address = Field(description="Where gRPC is served, host:port.")
    database_url: PostgresUrl = Field(description="The service's own database, as its service role.")
    nats_url: str = Field(description="NATS servers, nats://host:port, separated by commas.")
    keyferry_audit_address: Addresses = Field(description="Replicas of audit, host:port, separated by commas.")
    key_encryption_secret: KeyringSetting = Field(
        description="Keyring of KEKs, v2:<base64url of 32 bytes>,v1:…; the first wraps, the others only unwrap."
    )
    keyferry_digest_secret: KeyringSetting = Field(
        description="Keyring for digests of keys, orders and owners; never remove a version: digests are not remade."
    )
    keyferry_kek: Literal["keyring", "transit"] = Field(
        default="keyring",
        description="Who wraps: KEY_ENCRYPTION_SECRET, or the Transit engine of HashiCorp Vault or OpenBao.",
    )
    keyferry_transit_address: AnyHttpUrl | None = Field(
        default=None, description="Where HashiCorp Vault or OpenBao is, https://host:port; set, it also unwraps."
    )
    keyferry_transit_token: SecretStr | None = Field(
        default=None, min_length=1, description="Token with `update` on encrypt and decrypt, `read` on the transit key."
    )
    keyferry_transit_mount: str = Field(
        default="transit", pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$", description="Where the engine is mounted."
    )
    keyferry_transit_key: str = Field(
        default="keyferry", pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="Name of the key, of type aes256-gcm96."
    )
    keyferry_transit_namespace: str = Field(default="", description="Its namespace, where there are some.")
    keyferry_transit_ca_file: Path | None = Field(
        default=None, description="PEM file of the authority of its certificate, if that is a private one."
    )
    r2_endpoint: AnyHttpUrl = Field(description="The object store's S3 endpoint.")
    r2_access_key_id: str = Field(min_length=1, description="Access key id at the object store.")
    r2_secret_access_key: SecretStr = Field(min_length=1, description="Secret access key at the object store.")
    r2_bucket: str = Field(min_length=3, description="The bucket of sealed objects; vault's alone.")
    public_url: AnyHttpUrl = Field(
        description="Origin under which browsers reach the edge, allowed by the bucket's CORS."
    )
    keyferry_retention_days: int = Field(
        365, ge=1, le=36_500, description="For how many days a key is kept after its owner first opened it."
    )
    keyferry_unopened_retention_days: int = Field(
        1461,
        ge=1,
        le=36_500,
        validate_default=True,
        description="For how many days a key that nobody opens is kept; not fewer than after an opening.",
    )
    keyferry_sweep_seconds: int = Field(
        300,
        ge=1,
        le=86_400,
        description="How often each replica looks for keys whose retention has passed, in seconds.",
    )
    keyferry_releases_per_hour: int = Field(
        30, ge=1, le=MOST_RELEASES_KEPT, description="How many links and reveals of one key an hour may have."
    )

    @field_validator("keyferry_unopened_retention_days")
    @classmethod
    def _check_longer(cls, days: int, others: ValidationInfo) -> int:
        if days < others.data.get("keyferry_retention_days", days):
            raise ValueError("must not be fewer than KEYFERRY_RETENTION_DAYS")
        return days

    def retention(self) -> Retention:
        """Return for how long keys are kept."""
        return Retention(
            opened=timedelta(days=self.keyferry_retention_days),
            unopened=timedelta(days=self.keyferry_unopened_retention_days),
        )

    @model_validator(mode="after")
    def _check_transit(self) -> Self:
        address, token = self.keyferry_transit_address, self.keyferry_transit_token
        if self.keyferry_kek == "transit" and address is None:
            raise ValueError("KEYFERRY_KEK is transit, so that KEYFERRY_TRANSIT_ADDRESS is needed; set it")
        if address is not None and token is None:
            raise ValueError(
                "KEYFERRY_TRANSIT_TOKEN is not set; set it, or KEYFERRY_TRANSIT_TOKEN_FILE to the path of a file that "
                "holds it, or take KEYFERRY_TRANSIT_ADDRESS away"
            )
        if address is not None and address.scheme != "https" and address.host not in _THIS_MACHINE:
            raise ValueError("KEYFERRY_TRANSIT_ADDRESS must be https: content keys travel to it")
        return self
