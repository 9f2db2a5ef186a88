"""Settings of kinguin-gateway."""

from datetime import timedelta

from chassis.settings import Address, Addresses, PostgresUrl, ServiceSettings
from pydantic import AnyHttpUrl, Field, SecretStr

from kinguin_gateway.domain.guard import Bounds
from kinguin_gateway.domain.looking import Pace


class Settings(ServiceSettings):
    """What kinguin-gateway is told."""

    keyferry_grpc_listen: Address = Field(description="Where gRPC is served, host:port.")
    database_url: PostgresUrl = Field(description="The service's own database, as its service role.")
    nats_url: str = Field(description="NATS servers, nats://host:port, separated by commas.")
    keyferry_vault_address: Addresses = Field(description="Replicas of vault, host:port, separated by commas.")
    kinguin_api_key: SecretStr = Field(min_length=1, description="The store's key at the supplier.")
    kinguin_base: AnyHttpUrl = Field(
        description="The supplier's base URL, for example https://gateway.kinguin.net/esa/api."
    )
    kinguin_auth: str = Field(
        default="x-api-key",
        pattern="^(x-api-key|bearer)$",
        description="How the key is shown to the supplier: x-api-key, or bearer for Authorization.",
    )
    kinguin_timeout: float = Field(
        default=20.0, gt=0, le=120, description="How long one call of the supplier may take, in seconds."
    )
    kinguin_commit_bound: float = Field(
        default=120.0,
        ge=0,
        le=3600,
        description="How long after we gave up the supplier may still take an order, in seconds. Too low buys twice.",
    )
    kinguin_search_lag_bound: float = Field(
        default=60.0,
        ge=0,
        le=3600,
        description="How long its search may take to show an order that it took, in seconds. Too low buys twice.",
    )
    keyferry_poll_first_seconds: float = Field(
        default=2.0,
        gt=0,
        le=3600,
        description="How soon a placed purchase is looked at without any webhook, in seconds.",
    )
    keyferry_poll_max_seconds: float = Field(
        default=300.0, gt=0, le=86_400, description="The longest gap between two looks at a purchase, in seconds."
    )
    keyferry_supplier_concurrency: int = Field(
        default=128, ge=1, le=1000, description="Most calls of the supplier that this replica has open at one time."
    )
    keyferry_supplier_calls_per_second: float = Field(
        default=100.0,
        gt=0,
        le=10_000,
        description="Most calls of the supplier per second, by all replicas together; it publishes no limit.",
    )

    keyferry_balance_seconds: float = Field(
        default=300.0, gt=0, le=86_400, description="How often our balance at the supplier is read, in seconds."
    )
    keyferry_balance_alert_days: float = Field(
        default=3.0, gt=0, le=365, description="An alert is raised when the balance lasts for fewer days than this."
    )
    keyferry_product_poll_seconds: float = Field(
        default=3600.0,
        ge=60,
        le=7 * 86_400,
        description="How often products that we have bought are asked about without any webhook, in seconds.",
    )

    @property
    def bounds(self) -> Bounds:
        """What we assume of the supplier."""
        return Bounds(
            commit=timedelta(seconds=self.kinguin_commit_bound),
            search_lag=timedelta(seconds=self.kinguin_search_lag_bound),
        )

    @property
    def pace(self) -> Pace:
        """How often a purchase is looked at."""
        return Pace(
            first=timedelta(seconds=self.keyferry_poll_first_seconds),
            longest=timedelta(seconds=self.keyferry_poll_max_seconds),
        )

    @property
    def call_limit(self) -> timedelta:
        """How long one call of the supplier may take."""
        return timedelta(seconds=self.kinguin_timeout)

    @property
    def balance_gap(self) -> timedelta:
        """How often our balance is read."""
        return timedelta(seconds=self.keyferry_balance_seconds)

    @property
    def product_gap(self) -> timedelta:
        """How often bought products are asked about."""
        return timedelta(seconds=self.keyferry_product_poll_seconds)
