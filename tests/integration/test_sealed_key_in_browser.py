"""Frozen sealed keys opened by WebCrypto, with the page's own code, in a real browser."""

import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
from joserfc.jwk import ECKey
from playwright.async_api import Page, Route, async_playwright
from vault.crypto import hand_over, new_dek, read_recipient

from tests.integration.real_servers import REPOSITORY
from tests.integration.test_edge_page import FLAGS
from tests.unit.vault.jose_by_hand import encode
from tests.unit.vault.test_sealed_vectors import BASE, SEALED, plaintext_of, sealed_of

STATIC = REPOSITORY / "gateway" / "gateway" / "static"
# WebCrypto is there in secure contexts only, of which http://localhost is one. Nothing listens there: the test answers.
ORIGIN = "http://localhost:9"

OPEN = """async ({sealed, dek, keyId}) => {
    const { openSealed, fromBase64url, toBase64url, sha256Hex } = await import("/jwe.js");
    const { header, plaintext } = await openSealed(sealed, fromBase64url(dek), keyId);
    return { header, sha256: await sha256Hex(plaintext), size: plaintext.length };
}"""
# WebCrypto alone: what a customer's own program in a browser would do.
OPEN_BARE = """async ({sealed, dek}) => {
    const binary = (text) => atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = (text) => Uint8Array.from(binary(text), (character) => character.charCodeAt(0));
    const [header, none, nonce, ciphertext, tag] = sealed.split(".");
    const key = await crypto.subtle.importKey("raw", bytes(dek), "AES-GCM", false, ["decrypt"]);
    const box = new Uint8Array([...bytes(ciphertext), ...bytes(tag)]);
    const additionalData = new TextEncoder().encode(header);
    const plaintext = await crypto.subtle.decrypt({ name: "AES-GCM", iv: bytes(nonce), additionalData }, key, box);
    return new TextDecoder("utf-8", { fatal: true }).decode(plaintext);
}"""
# Every bit of nonce, ciphertext, tag and content key, and of the header as it is written.
OPEN_FLIPPED = """async ({sealed, dek, keyId}) => {
    const { openSealed, fromBase64url, toBase64url, CannotOpen } = await import("/jwe.js");
    const segments = sealed.split(".");
    let refused = 0, opened = 0;
    const attempt = async (parts, key) => {
        try { await openSealed(parts.join("."), key, keyId); opened += 1; }
        catch (error) { if (!(error instanceof CannotOpen)) throw error; refused += 1; }
    };
    for (const part of [2, 3, 4, "dek"]) {
        const bytes = fromBase64url(part === "dek" ? dek : segments[part]);
        for (let position = 0; position < bytes.length * 8; position += 1) {
            const changed = bytes.slice();
            changed[position >> 3] ^= 1 << (position & 7);
            const parts = part === "dek" ? segments : segments.with(part, toBase64url(changed));
            await attempt(parts, part === "dek" ? changed : fromBase64url(dek));
        }
    }
    for (let position = 0; position < segments[0].length * 8; position += 1) {
        const characters = Array.from(segments[0]);
        const code = characters[position >> 3].charCodeAt(0) ^ (1 << (position & 7));
        characters[position >> 3] = String.fromCharCode(code);
        await attempt(segments.with(0, characters.join("")), fromBase64url(dek));
    }
    return { refused, opened };
}"""
RECEIVE = """async () => {
    const { makeRecipient } = await import("/jwe.js");
    window.recipient = await makeRecipient();
    return JSON.stringify(window.recipient.jwk);
}"""
OPEN_RECEIVED = """async (token) => {
    const { openWithRecipient, toBase64url } = await import("/jwe.js");
    const { header, plaintext } = await openWithRecipient(token, window.recipient.privateKey);
    return { kid: header.kid, secret: toBase64url(plaintext) };
}"""


async def _serve(route: Route) -> None:
    if route.request.url == f"{ORIGIN}/jwe.js":
        await route.fulfill(path=STATIC / "jwe.js", content_type="text/javascript")
    else:
        await route.fulfill(body="<!doctype html><title>vectors</title>", content_type="text/html")


@pytest.fixture(scope="module")
async def page() -> AsyncIterator[Page]:
    installed = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=installed, args=FLAGS)
        page = await browser.new_page()
        await page.route("**/*", _serve)
        await page.goto(ORIGIN)
        yield page
        await browser.close()


def wish(case: dict[str, Any]) -> dict[str, str]:
    return {"sealed": sealed_of(case).decode(), "dek": case["dek"], "keyId": case["key_id"]}


@pytest.mark.parametrize("case", SEALED["opened"], ids=lambda case: str(case["name"]))
async def test_the_page_opens_what_was_once_sealed(page: Page, case: dict[str, Any]) -> None:
    found = await page.evaluate(OPEN, wish(case))
    plaintext = plaintext_of(case)
    assert (found["size"], found["sha256"]) == (len(plaintext), hashlib.sha256(plaintext).hexdigest())
    assert (found["header"]["kid"], found["header"]["cty"]) == (case["key_id"], case["content_type"])


async def test_webcrypto_alone_opens_it(page: Page) -> None:
    for case in SEALED["opened"]:
        if case["content_type"] == "text/plain":
            assert await page.evaluate(OPEN_BARE, wish(case)) == plaintext_of(case).decode()


async def test_no_flipped_bit_opens_anything_in_the_page(page: Page) -> None:
    found = await page.evaluate(OPEN_FLIPPED, wish(BASE))
    assert found["opened"] == 0
    header = BASE["sealed"].partition(".")[0]
    assert found["refused"] == 8 * (12 + len(plaintext_of(BASE)) + 16 + 32 + len(header))


async def test_the_page_opens_what_is_handed_over_to_it_and_nobody_elses(page: Page) -> None:
    dek = new_dek()
    recipient = read_recipient((await page.evaluate(RECEIVE)).encode())
    token = hand_over(dek, recipient, content_type="application/octet-stream", key_id="key-1")
    assert await page.evaluate(OPEN_RECEIVED, token) == {"kid": "key-1", "secret": encode(dek.expose())}
    stranger = hand_over(dek, ECKey.generate_key("P-256"), content_type="application/octet-stream", key_id="key-1")
    with pytest.raises(Exception, match="does not unwrap"):
        await page.evaluate(OPEN_RECEIVED, stranger)
