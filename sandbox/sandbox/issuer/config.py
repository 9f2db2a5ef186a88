"""What the issuer is told."""

from pathlib import Path

from chassis.settings import Address, NameList, Settings
from pydantic import Field, SecretStr


class IssuerSettings(Settings):
    """Settings of the issuer."""

    issuer_listen: Address = Field(description="Where it listens, host:port.")
    issuer_url: str = Field(description="Its own URL, as tokens spell it in iss.")
    issuer_key_file: Path = Field(description="File of the signing key; made when missing.")
    issuer_redirect_uris: NameList = Field(description="Where codes may be sent, separated by commas; exact.")
    oidc_client_id: str = Field(description="The client's id.")
    oidc_client_secret: SecretStr = Field(description="The client's secret.")
    oidc_audience: str = Field(description="What access tokens name in aud.")
