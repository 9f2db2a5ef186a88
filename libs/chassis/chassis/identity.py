"""Who is calling: the SPIFFE identity in the peer's certificate, and the list of what it may call."""

from collections.abc import Mapping
from typing import Any

import grpc
from cryptography import x509

from chassis.errors import IdentityUnknown, MethodNotAllowed

TRUST_DOMAIN = "spiffe://keyferry/"

AccessList = Mapping[str, frozenset[str]]
"""Method name → names of the identities that may call it. A method that is absent may be called by nobody."""

# Anybody with a certificate of ours may ask how a service is and what it speaks.
OPEN_SERVICES = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.reflection.v1.ServerReflection",
)


def caller_identity(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Return the name in the caller's certificate (`vault` for `spiffe://keyferry/vault`).

    The TLS handshake has verified the certificate against our CA. Raises IdentityUnknown when it carries no such
    name, or
    more than one.
    """
    certificates = context.auth_context().get("x509_pem_cert", ())
    names: list[str] = []
    for pem in certificates:
        try:
            extension = x509.load_pem_x509_certificate(bytes(pem)).extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
        except (ValueError, x509.ExtensionNotFound):
            continue
        names += extension.value.get_values_for_type(x509.UniformResourceIdentifier)
    if len(names) != 1 or not names[0].startswith(TRUST_DOMAIN):
        raise IdentityUnknown(f"the client certificate must carry exactly one URI that begins with {TRUST_DOMAIN}")
    return names[0].removeprefix(TRUST_DOMAIN)


def check_access(access: AccessList, identity: str, full_method: str) -> None:
    """Raise MethodNotAllowed unless the identity may call `/package.Service/Method`."""
    service, _, method = full_method.lstrip("/").partition("/")
    if service in OPEN_SERVICES:
        return
    if identity not in access.get(method, frozenset()):
        raise MethodNotAllowed(f"{identity} may not call {method}", metadata={"identity": identity, "method": method})
