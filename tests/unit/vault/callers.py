"""Who calls: a context as gRPC gives it to a servicer, with the certificate of one of our identities."""

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from tests.unit.vault.fakes import NOON

if TYPE_CHECKING:
    import grpc


class _Context:
    def __init__(self, certificate: bytes) -> None:
        self._certificate = certificate

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._certificate]}


@cache
def caller(identity: str) -> "grpc.aio.ServicerContext[Any, Any]":
    return cast("grpc.aio.ServicerContext[Any, Any]", _Context(_certificate(identity)))


def _certificate(identity: str) -> bytes:
    key, nobody = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    named = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://keyferry/{identity}")])
    return (
        x509.CertificateBuilder()
        .subject_name(nobody)
        .issuer_name(nobody)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOON)
        .not_valid_after(NOON + timedelta(days=1))
        .add_extension(named, critical=True)
        .sign(key, SHA256())
        .public_bytes(Encoding.PEM)
    )
