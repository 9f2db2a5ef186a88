// Opens the two JWEs (RFC 7516, compact) that the order page receives: the content key, encrypted to a one-time P-256 key
// made in this page, and the sealed game key, encrypted under that content key. Anything but the two exact forms is refused.

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

const IV_BYTES = 12;
const TAG_BYTES = 16;
const P256 = { name: "ECDH", namedCurve: "P-256" };

/** A JWE that does not have the agreed form, or that fails to open. */
export class CannotOpen extends Error {
  name = "CannotOpen";
}

export function toBase64url(bytes) {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export function fromBase64url(text) {
  if (!/^[A-Za-z0-9_-]*$/.test(text)) throw new CannotOpen("not base64url");
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

/** Make a one-time key pair. The private part cannot leave the browser: it is not extractable. */
export async function makeRecipient() {
  const pair = await crypto.subtle.generateKey(P256, false, ["deriveBits"]);
  const { kty, crv, x, y } = await crypto.subtle.exportKey("jwk", pair.publicKey);
  return { privateKey: pair.privateKey, jwk: { kty, crv, x, y } };
}

export async function sha256Hex(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Open a JWE with `alg` ECDH-ES+A256KW and `enc` A256GCM. */
export async function openWithRecipient(jwe, privateKey) {
  const parts = parse(jwe);
  expectHeader(parts.header, { alg: "ECDH-ES+A256KW", enc: "A256GCM" });
  const wrapping = await agree(parts.header, privateKey);
  const contentKey = await crypto.subtle
    .unwrapKey("raw", parts.encryptedKey, wrapping, "AES-KW", "AES-GCM", false, ["decrypt"])
    .catch(() => {
      throw new CannotOpen("the content key does not unwrap");
    });
  return { header: parts.header, plaintext: await decrypt(parts, contentKey) };
}

/** Open a sealed game key: `alg` dir, `enc` A256GCM, and `kid` naming exactly this key. */
export async function openSealed(jwe, contentKeyBytes, keyId) {
  const parts = parse(jwe);
  expectHeader(parts.header, { alg: "dir", enc: "A256GCM", kid: keyId });
  if (parts.encryptedKey.length !== 0 || contentKeyBytes.length !== 32) throw new CannotOpen("not a direct JWE");
  const contentKey = await crypto.subtle.importKey("raw", contentKeyBytes, "AES-GCM", false, ["decrypt"]);
  return { header: parts.header, plaintext: await decrypt(parts, contentKey) };
}

function parse(jwe) {
  const segments = jwe.split(".");
  if (segments.length !== 5) throw new CannotOpen("not a compact JWE");
  const [protectedText, ...rest] = segments;
  const [encryptedKey, iv, ciphertext, tag] = rest.map(fromBase64url);
  if (iv.length !== IV_BYTES || tag.length !== TAG_BYTES) throw new CannotOpen("not an A256GCM JWE");
  let header;
  try {
    header = JSON.parse(decoder.decode(fromBase64url(protectedText)));
  } catch {
    throw new CannotOpen("unreadable header");
  }
  return { protectedText, header, encryptedKey, iv, ciphertext, tag };
}

function expectHeader(header, expected) {
  // An extension or compression that this page does not know could change what the bytes mean (RFC 7516 4.1.13).
  if ("crit" in header || "zip" in header) throw new CannotOpen("unknown extension");
  for (const [name, value] of Object.entries(expected)) {
    if (header[name] !== value) throw new CannotOpen(`unexpected ${name}`);
  }
}

// RFC 7518 4.6: ECDH with the sender's one-time key, then the Concat KDF for a 256-bit AES key-wrap key.
async function agree(header, privateKey) {
  const { kty, crv, x, y } = header.epk ?? {};
  if (kty !== "EC" || crv !== "P-256") throw new CannotOpen("unexpected epk");
  const ephemeral = await crypto.subtle.importKey("jwk", { kty, crv, x, y }, P256, false, []).catch(() => {
    throw new CannotOpen("epk is not a point of P-256");
  });
  const shared = await crypto.subtle.deriveBits({ name: "ECDH", public: ephemeral }, privateKey, 256);
  const info = concat(
    uint32(1),
    new Uint8Array(shared),
    withLength(encoder.encode(header.alg)),
    withLength(fromBase64url(header.apu ?? "")),
    withLength(fromBase64url(header.apv ?? "")),
    uint32(256),
  );
  const derived = await crypto.subtle.digest("SHA-256", info);
  return crypto.subtle.importKey("raw", derived, "AES-KW", false, ["unwrapKey"]);
}

async function decrypt({ protectedText, iv, ciphertext, tag }, contentKey) {
  const algorithm = { name: "AES-GCM", iv, additionalData: encoder.encode(protectedText), tagLength: TAG_BYTES * 8 };
  try {
    return new Uint8Array(await crypto.subtle.decrypt(algorithm, contentKey, concat(ciphertext, tag)));
  } catch {
    throw new CannotOpen("the ciphertext was changed or is not for this key");
  }
}

function uint32(number) {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, number);
  return bytes;
}

function withLength(bytes) {
  return concat(uint32(bytes.length), bytes);
}

function concat(...arrays) {
  const whole = new Uint8Array(arrays.reduce((total, bytes) => total + bytes.length, 0));
  let offset = 0;
  for (const bytes of arrays) {
    whole.set(bytes, offset);
    offset += bytes.length;
  }
  return whole;
}
