"""Settings of the audit service."""

from chassis.settings import Address, KeyringSetting, PostgresUrl, ServiceSettings
from pydantic import Field


class Settings(ServiceSettings):
    """What audit is told."""

    keyferry_grpc_listen: Address = Field(description="Where gRPC is served, host:port.")
    database_url: PostgresUrl = Field(description="The service's own database, as its service role.")
    nats_url: str = Field(description="NATS servers, nats://host:port, separated by commas.")
    keyferry_audit_secret: KeyringSetting = Field(
        description="Keyring v1:<base64url of 32 bytes>,… that wraps the keys of persons and hides who they are."
    )
