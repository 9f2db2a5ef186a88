// One game key on the order page: shows it, counts down its link, renews the link, hides the key again.

import { Problem, post, wait } from "./api.js";
import { CannotOpen, makeRecipient, openSealed, openWithRecipient, sha256Hex } from "./jwe.js";

const PICTURES = { "image/png": "png", "image/jpeg": "jpg", "image/gif": "gif" };
const RENEW_BEFORE_MS = 15_000;
// After an hour of renewals somebody has probably left the screen: the key is hidden.
const RENEWALS = 4;
const FETCH_LIMIT_MS = 20_000;

const SENTENCES = {
  UNREACHABLE: "We cannot reach Keyferry from here. Check your connection and try again; your key is safe.",
  STORE: "The place where your locked key is kept does not answer. Your key is safe; please try again in a moment.",
  CHANGED: "What we received is not the key that we stored, so we did not open it. Please contact the shop.",
  KEY_CORRUPTED: "What we stored of this key was damaged, so we did not open it. A person is looking at it; you need not do anything.",
  KEY_REVOKED: "This key was taken back and cannot be opened any more. Reload the page: your order says what became of it.",
  KEY_EXPIRED: "This key is not kept any more: the time for which we keep keys has passed.",
  401: "You are logged out. Reload the page to log in again.",
  403: "This page is out of date. Reload it and try again.",
  404: "This key is not available. Reload the page to see what has changed.",
  429: "That was too many tries in a short time.",
  503: "Keys cannot be opened right now, because a part of our system is down. Your key is safe; please try again soon.",
};

export class KeyCard {
  #root;
  #linkUrl;
  #keyId;
  #body;
  #button;
  #status;
  #timer = null;
  #deadline = 0;
  #objectUrl = null;
  #generation = 0;
  #renewals = 0;
  #onOpened;

  constructor(root, { onOpened }) {
    this.#root = root;
    this.#onOpened = onOpened;
    this.#linkUrl = root.dataset.linkUrl;
    this.#keyId = root.dataset.keyId;
    this.#body = root.querySelector(".key-body");
    this.#button = root.querySelector(".show");
    this.#status = root.querySelector(".key-status");
    root.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      if (root.dataset.view === "opening") return;
      if (root.dataset.view === "open") this.hide();
      else this.#show();
    });
    document.addEventListener("visibilitychange", () => this.#tick());
  }

  /** Forget the key: remove it from the page and from memory, and stop renewing. */
  hide() {
    this.#generation += 1;
    clearInterval(this.#timer);
    this.#timer = null;
    if (this.#objectUrl) URL.revokeObjectURL(this.#objectUrl);
    this.#objectUrl = null;
    this.#body.replaceChildren();
    this.#setView("closed", "");
  }

  async #show() {
    const generation = (this.#generation += 1);
    this.#renewals = 0;
    this.#setView("opening", "Opening your key on this device…");
    try {
      const opened = await this.#open();
      if (generation !== this.#generation) return;
      this.#render(opened);
      this.#setView("open", "");
      this.#onOpened();
      this.#startClock(opened.remaining);
    } catch (error) {
      if (generation === this.#generation) this.#fail(error);
    }
  }

  // The private half of the one-time key lives only in this call.
  async #open() {
    const { privateKey, jwk } = await makeRecipient();
    const { body, serverTime } = await post(this.#linkUrl, { recipient_jwk: jwk });
    const sealed = await fetchSealed(body.url);
    if ((await sha256Hex(sealed)) !== body.object_sha256) throw new CannotOpen("digest");
    const contentKey = await openWithRecipient(body.content_key_jwe, privateKey);
    const { header, plaintext } = await openSealed(new TextDecoder().decode(sealed), contentKey.plaintext, this.#keyId);
    contentKey.plaintext.fill(0);
    return { type: header.cty, plaintext, remaining: Date.parse(body.expire_time) - serverTime };
  }

  #render({ type, plaintext }) {
    const kind = type in PICTURES ? "picture" : "text";
    const view = document.getElementById(`${kind}-key-template`).content.cloneNode(true);
    if (kind === "picture") {
      this.#objectUrl = URL.createObjectURL(new Blob([plaintext], { type }));
      view.querySelector("img").src = this.#objectUrl;
      const download = view.querySelector(".download");
      download.href = this.#objectUrl;
      download.download = `game-key-${this.#keyId}.${PICTURES[type]}`;
    } else if (type === "text/plain") {
      const secret = view.querySelector(".secret");
      secret.textContent = new TextDecoder().decode(plaintext);
      this.#wireCopy(view.querySelector(".copy"), secret);
    } else {
      throw new CannotOpen("unknown content type");
    }
    plaintext.fill(0);
    this.#body.replaceChildren(view);
  }

  #wireCopy(button, secret) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(secret.textContent);
        this.#announce("Copied.");
        button.textContent = "Copied";
        await wait(2000);
        button.textContent = "Copy";
      } catch {
        getSelection().selectAllChildren(secret);
        this.#announce("Your browser does not let us copy. The key is selected: copy it with your keyboard.");
      }
    });
  }

  #startClock(remaining) {
    this.#deadline = performance.now() + remaining;
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#tick(), 1000);
    this.#tick();
  }

  #tick() {
    if (this.#timer === null) return;
    const left = this.#deadline - performance.now();
    const line = this.#body.querySelector(".expiry");
    line.hidden = false;
    line.querySelector("[role=timer]").textContent = clock(Math.max(0, left));
    if (document.visibilityState === "visible") {
      if (left < RENEW_BEFORE_MS) this.#renew();
    } else if (left <= 0) {
      this.hide();
      this.#announce("Hidden while you were away. Press Show key to see it again.");
    }
  }

  // The key that is shown stays as it is, with the reader's focus and selection in it; only its link is new.
  async #renew() {
    clearInterval(this.#timer);
    this.#timer = null;
    if (this.#renewals >= RENEWALS) {
      this.hide();
      this.#announce("Hidden after an hour on the screen. Press Show key to see it again.");
      return;
    }
    this.#renewals += 1;
    const generation = this.#generation;
    try {
      const { plaintext, remaining } = await this.#open();
      plaintext.fill(0);
      if (generation === this.#generation) this.#startClock(remaining);
    } catch (error) {
      if (generation === this.#generation) this.#fail(error);
    }
  }

  #fail(error) {
    this.hide();
    this.#setView("failed", sentence(error));
  }

  #setView(view, status) {
    this.#root.dataset.view = view;
    this.#body.hidden = view !== "open";
    this.#button.setAttribute("aria-expanded", String(view === "open"));
    this.#button.setAttribute("aria-disabled", String(view === "opening"));
    this.#button.querySelector(".label").textContent = { open: "Hide key", failed: "Try again" }[view] ?? "Show key";
    this.#announce(status);
  }

  #announce(text) {
    this.#status.textContent = text;
  }
}

async function fetchSealed(url) {
  try {
    const response = await fetch(url, {
      cache: "no-store",
      credentials: "omit",
      referrerPolicy: "no-referrer",
      signal: AbortSignal.timeout(FETCH_LIMIT_MS),
    });
    if (!response.ok) throw new Problem({ status: response.status, reason: "STORE" });
    return new Uint8Array(await response.arrayBuffer());
  } catch {
    throw new Problem({ reason: "STORE" });
  }
}

function sentence(error) {
  if (error instanceof CannotOpen) return SENTENCES.CHANGED;
  if (!(error instanceof Problem)) return "This browser could not open the key. Reload the page and try again.";
  const known = SENTENCES[error.reason] ?? SENTENCES[error.status] ?? SENTENCES[503];
  return error.status === 429 && error.retryAfter ? `${known} Try again in ${error.retryAfter} seconds.` : known;
}

function clock(milliseconds) {
  const seconds = Math.ceil(milliseconds / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}
