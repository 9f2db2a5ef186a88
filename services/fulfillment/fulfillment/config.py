"""What fulfillment is told."""

from email.utils import parseaddr
from typing import Annotated
from urllib.parse import urlsplit

from chassis.settings import Address, Addresses, PostgresUrl, ServiceSettings
from pydantic import AfterValidator, AnyHttpUrl, Field, SecretStr


def _smtp_url(secret: SecretStr) -> SecretStr:
    parts = urlsplit(secret.get_secret_value())
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
        raise ValueError("must be smtp://host:port or smtps://user:password@host:port")
    return secret


def _mailbox(text: str) -> str:
    _, address = parseaddr(text)
    if "@" not in address or not text.isprintable():
        raise ValueError("must be a mailbox, for example Keys <keys@shop.example>")
    return text


class Settings(ServiceSettings):
    """Settings of fulfillment."""

    keyferry_grpc_listen: Address = Field(description="Where gRPC is served, host:port.")
    database_url: PostgresUrl = Field(description="The service's own database, as its service role.")
    nats_url: str = Field(description="NATS servers, nats://host:port, separated by commas.")
    keyferry_kinguin_address: Addresses = Field(description="Replicas of kinguin-gateway, separated by commas.")
    keyferry_vault_address: Addresses = Field(description="Replicas of vault, host:port, separated by commas.")
    smtp_url: Annotated[SecretStr, AfterValidator(_smtp_url)] = Field(
        description="The mail server: smtp://host:port, with STARTTLS where offered, or smtps://user:password@host:port."
    )
    keyferry_mail_from: Annotated[str, AfterValidator(_mailbox)] = Field(
        description="From whom the mail is, for example Keys <keys@shop.example>."
    )
    public_url: AnyHttpUrl = Field(description="Origin under which browsers reach the edge, for the link in the mail.")
