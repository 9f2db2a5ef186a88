"""The issuer as a process."""

import asyncio

from chassis.settings import load_or_exit

from sandbox.issuer.app import Issuer
from sandbox.issuer.config import IssuerSettings
from sandbox.issuer.flow import Client
from sandbox.issuer.tokens import Mint, SigningKey
from sandbox.web import serve


def main() -> None:
    """Serve until told to stop."""
    settings = load_or_exit(IssuerSettings)
    mint = Mint(
        SigningKey.ensure(settings.issuer_key_file), issuer=settings.issuer_url, audience=settings.oidc_audience
    )
    client = Client(
        settings.oidc_client_id, settings.oidc_client_secret.get_secret_value(), settings.issuer_redirect_uris
    )
    asyncio.run(serve(Issuer(mint, client).application(), settings.issuer_listen))


if __name__ == "__main__":
    main()
