"""What fulfillment is told."""

from datetime import timedelta
from email.utils import parseaddr
from typing import Annotated
from urllib.parse import urlsplit

from chassis.settings import Address, Addresses, PostgresUrl, ServiceSettings
from pydantic import AfterValidator, AnyHttpUrl, Field, SecretStr

from fulfillment.domain.policy import Policy, Remedy
from fulfillment.domain.reconciliation import Limits


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
    keyferry_price_tolerance_percent: int = Field(
        0, ge=0, le=100, description="How far above an item's max_unit_price a key may be bought, in percent."
    )
    keyferry_stock_patience_seconds: int = Field(
        1800, ge=0, le=86_400, description="How long stock and price of a product are waited for before anything else."
    )
    keyferry_purchase_attempts: int = Field(
        5, ge=1, le=20, description="Offers that are tried for one purchase when the supplier refuses."
    )
    keyferry_when_refused: Remedy = Field(
        Remedy.ATTENTION,
        description="What becomes of a purchase that nobody sells: attention (a human decides) or refund.",
    )

    keyferry_never_opened_days: int = Field(
        30, ge=1, le=3650, description="After how many days reconciliation names a key that was never opened."
    )
    keyferry_report_grace_seconds: int = Field(
        600,
        ge=1,
        le=86_400,
        description="What is younger than this reconciliation leaves to the next report, in seconds.",
    )

    def policy(self) -> Policy:
        """Return what the shop has decided about buying."""
        return Policy(
            price_tolerance_percent=self.keyferry_price_tolerance_percent,
            stock_patience=timedelta(seconds=self.keyferry_stock_patience_seconds),
            most_attempts=self.keyferry_purchase_attempts,
            when_refused=self.keyferry_when_refused,
        )

    def limits(self) -> Limits:
        """Return for how long what is on its way is no difference."""
        return Limits(
            grace=timedelta(seconds=self.keyferry_report_grace_seconds),
            never_opened=timedelta(days=self.keyferry_never_opened_days),
        )
