// Talks to the edge's own API with the page's session: CSRF header, idempotency key, problem+json (RFC 9457) as exceptions.

const ATTEMPTS = 3;
const LONGEST_WAIT_MS = 4000;

/** An error answer of the API, or no answer at all (`status` 0). */
export class Problem extends Error {
  name = "Problem";

  constructor({ status = 0, reason = "UNREACHABLE", detail = "", retryAfter = null }) {
    super(reason);
    Object.assign(this, { status, reason, detail, retryAfter });
  }
}

export async function get(url) {
  return read(await reach(url, { headers: { Accept: "application/json" } }));
}

/**
 * POST, and repeat under the same idempotency key when the edge cannot be reached or says that something behind it is down.
 * Gives back the body and the server's time, since a phone's clock may be wrong; its header may be two seconds old.
 */
export async function post(url, body) {
  const csrf = document.querySelector('meta[name="csrf-token"]').content;
  const request = {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      "X-CSRF-Token": csrf,
      "Idempotency-Key": crypto.randomUUID(),
    },
    body: JSON.stringify(body),
  };
  for (let attempt = 1; ; attempt += 1) {
    try {
      const response = await reach(url, request);
      const serverTime = Date.parse(response.headers.get("Date")) + 2000 || Date.now();
      return { body: await read(response), serverTime };
    } catch (problem) {
      const temporary = problem.status === 0 || problem.status === 503;
      if (!temporary || attempt === ATTEMPTS) throw problem;
      await wait(Math.min((problem.retryAfter ?? attempt) * 1000, LONGEST_WAIT_MS));
    }
  }
}

export function wait(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function reach(url, request) {
  try {
    return await fetch(url, { ...request, cache: "no-store", credentials: "same-origin", redirect: "error" });
  } catch {
    throw new Problem({});
  }
}

async function read(response) {
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  throw new Problem({
    status: response.status,
    reason: body.reason ?? "UNKNOWN",
    detail: body.detail ?? "",
    retryAfter: Number(response.headers.get("Retry-After")) || null,
  });
}
