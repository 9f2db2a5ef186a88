"""Which JWEs are made and taken (RFC 7516): the algorithms that are named, up to the size that is named."""

from collections.abc import Sequence

from joserfc.jwe import JWERegistry
from joserfc.registry import HeaderParameter


def jwe_registry(*algorithms: str, most_plaintext_bytes: int, private_headers: Sequence[str] = ()) -> JWERegistry:
    """Return a registry for joserfc with nothing but these `alg` and `enc`.

    The library refuses a header that it does not know; the private ones (RFC 7516 section 4.3) named here are required
    to be text. Its own bound on a ciphertext, 64 KiB, is less than what Keyferry seals.
    """
    private = {name: HeaderParameter(name, "str", required=True) for name in private_headers}
    registry = JWERegistry(header_registry=private, algorithms=algorithms)
    # base64url makes four characters of three bytes.
    registry.max_ciphertext_length = most_plaintext_bytes * 4 // 3 + 4
    return registry
