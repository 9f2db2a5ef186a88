"""Which JWEs are made and taken (RFC 7516): the algorithms that are named, up to the size that is named."""

from joserfc.jwe import JWERegistry


def jwe_registry(*algorithms: str, most_plaintext_bytes: int) -> JWERegistry:
    """Return a registry for joserfc with nothing but these `alg` and `enc`.

    The library's own bound on a ciphertext, 64 KiB, is less than what Keyferry seals.
    """
    registry = JWERegistry(algorithms=algorithms)
    # base64url makes four characters of three bytes.
    registry.max_ciphertext_length = most_plaintext_bytes * 4 // 3 + 4
    return registry
