"""The security headers of every answer."""

from collections.abc import Mapping


def content_security_policy(object_origin: str, *, inline_pictures: bool = False) -> str:
    """Return the policy of our pages: own files only, and ciphertexts from the object store.

    With `inline_pictures` a picture may stand in the page itself, which only the answer without scripts needs.
    """
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:" if inline_pictures else "'self' blob:",
        "connect-src": f"'self' {object_origin}",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    return "; ".join(f"{name} {value}" for name, value in policy.items())


def security_headers(*, origin: str, object_origin: str) -> Mapping[str, str]:
    """Return the headers of every answer. A route may set its own value for one of them first."""
    headers = {
        "content-security-policy": content_security_policy(object_origin),
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "clipboard-write=(self), camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "cache-control": "no-store",
    }
    if origin.startswith("https://"):
        headers["strict-transport-security"] = "max-age=63072000; includeSubDomains"
    return headers
