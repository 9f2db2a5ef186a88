"""The edge's settings."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from chassis.settings import Address, Addresses, KeyringSetting, NameList, ServiceSettings
from limits import parse
from pydantic import AfterValidator, Field, SecretStr

from gateway.edge import WebhookProofs

_SECRET = re.compile(r"[\x21-\x7e]+")


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path not in ("", "/") or parts.query:
        raise ValueError("must be an origin, for example https://keys.example.com")
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1"):
        raise ValueError("must begin with https:// unless the host is localhost")
    return f"{parts.scheme}://{parts.netloc}"


def _issuer(text: str) -> str:
    if urlsplit(text).scheme not in ("http", "https"):
        raise ValueError("must be the issuer's URL, exactly as its tokens spell it in iss")
    return text


def _secret_list(secret: SecretStr) -> SecretStr:
    """Refuse what could match nothing, or anything: an empty secret, or one that no header carries unchanged."""
    if not all(_SECRET.fullmatch(part.strip()) for part in secret.get_secret_value().split(",")):
        raise ValueError("must be one or more secrets of printable ASCII without spaces, separated by commas")
    return secret


def _rate(text: str) -> str:
    try:
        parse(text)
    except ValueError:
        raise ValueError("must read like 600/minute") from None
    return text


Origin = Annotated[str, AfterValidator(_origin)]
Rate = Annotated[str, AfterValidator(_rate)]
SecretList = Annotated[SecretStr, AfterValidator(_secret_list)]


class Settings(ServiceSettings):
    """What the edge is told besides what every service is."""

    public_url: Origin = Field(description="Origin under which browsers reach the edge; https unless it is localhost.")
    keyferry_http_listen: Address = Field(
        description="Where the public port listens, host:port; TLS ends in front of it."
    )
    keyferry_fulfillment_address: Addresses = Field(
        description="Replicas of fulfillment, host:port separated by commas."
    )
    keyferry_audit_address: Addresses = Field(description="Replicas of audit, host:port separated by commas.")
    nats_url: SecretStr = Field(description="NATS servers, separated by commas.")
    keyferry_object_origin: Origin = Field(description="Origin of the presigned URLs, for the page's connect-src.")

    kinguin_webhook_secret: SecretList = Field(
        description="What Kinguin sends in X-Event-Secret; several separated by commas while rotating. Kinguin's "
        "dashboard may take no more than 32 characters."
    )
    keyferry_webhook_signature_secret: SecretList | None = Field(
        default=None,
        description="Where set, webhooks must carry X-Kinguin-Signature as well; several separated by commas.",
    )

    oidc_issuer: Annotated[str, AfterValidator(_issuer)] = Field(
        description="The OIDC issuer, as tokens spell it in iss."
    )
    oidc_client_id: str = Field(min_length=1, description="The edge's client id at the issuer.")
    oidc_client_secret: SecretStr = Field(description="The edge's client secret at the issuer.")
    oidc_audience: str = Field(min_length=1, description="What bearer tokens must name in aud.")
    keyferry_session_secret: KeyringSetting = Field(
        description="Keyring that seals session cookies, v2:<base64url of 32 bytes>,v1:…; the first is active."
    )
    keyferry_session_seconds: int = Field(
        default=8 * 3600, ge=60, le=7 * 24 * 3600, description="How long a login lasts: a working day."
    )

    keyferry_trusted_proxies: NameList = Field(
        default=(),
        description="Addresses or networks whose X-Forwarded-For is believed, separated by commas; none unless set.",
    )
    keyferry_country_header: str = Field(
        default="",
        pattern="^([A-Za-z][A-Za-z0-9-]{0,63})?$",
        description=(
            "Header in which the proxy in front tells a visitor's country (CF-IPCountry at Cloudflare); the proxy must "
            "set or remove it on every request. Without one no country is known."
        ),
    )
    keyferry_stream_seconds: float = Field(
        default=300.0, gt=0, le=3600, description="How long one event stream lives before the page connects again."
    )
    keyferry_limit_address: Rate = Field(default="3000/minute", description="Requests of one IP address.")
    keyferry_limit_customer: Rate = Field(default="1200/minute", description="Requests of one customer.")
    keyferry_limit_open_key: Rate = Field(default="120/minute", description="Keys opened by one customer.")
    keyferry_limit_refused_webhook: Rate = Field(
        default="60/minute",
        description="Webhooks with a bad proof from one IP address that are logged; every one is counted and refused.",
    )

    def limits(self) -> dict[str, str]:
        """Return the limits by the names that the routes count under."""
        return {
            "address": self.keyferry_limit_address,
            "customer": self.keyferry_limit_customer,
            "open_key": self.keyferry_limit_open_key,
            "refused_webhook": self.keyferry_limit_refused_webhook,
        }

    def webhook_proofs(self) -> WebhookProofs:
        """Return the secrets that a webhook may prove itself with."""
        return WebhookProofs(
            event_secrets=split_secrets(self.kinguin_webhook_secret),
            signature_secrets=split_secrets(self.keyferry_webhook_signature_secret),
        )


def split_secrets(secret: SecretStr | None) -> tuple[bytes, ...]:
    """Return the secrets of a comma-separated list."""
    text = secret.get_secret_value() if secret is not None else ""
    return tuple(part.strip().encode() for part in text.split(",") if part.strip())
