"""What vault is told."""

from chassis.settings import Address, Addresses, KeyringSetting, PostgresUrl, ServiceSettings
from pydantic import AnyHttpUrl, Field, SecretStr


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
    r2_endpoint: AnyHttpUrl = Field(description="The object store's S3 endpoint.")
    r2_access_key_id: str = Field(min_length=1, description="Access key id at the object store.")
    r2_secret_access_key: SecretStr = Field(min_length=1, description="Secret access key at the object store.")
    r2_bucket: str = Field(min_length=3, description="The bucket of sealed objects; vault's alone.")
    public_url: AnyHttpUrl = Field(
        description="Origin under which browsers reach the edge, allowed by the bucket's CORS."
    )
