// Keeps the order page up to date: server-sent events while they work, polling while they do not.

import { get, wait } from "./api.js";
import { KeyCard } from "./key.js";
import { localTime } from "./times.js";

const POLL_FIRST_MS = 4000;
const POLL_MAX_MS = 30_000;
// So many answers in a row, and streams are tried again.
const POLLS = 3;

const page = document.querySelector("[data-order-url]");
const orderUrl = page.dataset.orderUrl;
const live = page.querySelector(".live");
const cards = new Map();
let following = page.dataset.final !== "true";
let polling = false;
let stream = null;

for (const element of page.querySelectorAll(".key[data-key-id]")) adopt(element);
addEventListener("pagehide", () => cards.forEach((card) => card.hide()));
document.addEventListener("visibilitychange", () => {
  if (document.hidden) hangUp();
  else if (following && !polling && !stream) listen();
});
if (following) listen();

function adopt(element) {
  const onOpened = () => {
    const note = element.querySelector(".key-note");
    if (!note.textContent) note.textContent = "Opened just now";
  };
  cards.set(element.dataset.keyId, new KeyCard(element, { onOpened }));
}

// A browser opens six connections to one host: tabs in the background must leave them to the one that is looked at.
function listen() {
  if (document.hidden) return;
  const source = (stream = new EventSource(`${orderUrl}/events`));
  source.addEventListener("order", (event) => {
    say("");
    render(JSON.parse(event.data));
  });
  source.addEventListener("end", () => stop(""));
  source.addEventListener("error", () => {
    if (source !== stream) return;
    if (source.readyState !== EventSource.CLOSED) return say("Connecting again…");
    stream = null;
    poll();
  });
}

function hangUp() {
  stream?.close();
  stream = null;
}

function stop(text) {
  following = false;
  hangUp();
  say(text);
}

// EventSource gives up for good on an error answer: ask until answers come again, the slower the longer none comes.
async function poll() {
  polling = true;
  let pause = POLL_FIRST_MS;
  for (let answers = 0; answers < POLLS; ) {
    try {
      const order = await get(orderUrl);
      render(order);
      if (order.progress.final) return stop("");
      say("Live updates are not available right now. We look again every few seconds.");
      answers += 1;
      pause = POLL_FIRST_MS;
    } catch (problem) {
      if (problem.status === 401) return stop("You are logged out. Reload the page to log in again.");
      if (problem.status === 404) return stop("This order is not available any more.");
      say("We cannot reach Keyferry right now. What you see may be old; we keep trying.");
      answers = 0;
      pause = Math.min(pause * 1.5, POLL_MAX_MS);
    }
    await wait(pause);
  }
  polling = false;
  listen();
}

function say(text) {
  if (live.textContent !== text) live.textContent = text;
}

function render(order) {
  const { headline, sentence, steps } = order.progress;
  setText(page.querySelector(".headline"), headline);
  setText(page.querySelector(".sentence"), sentence);
  page.querySelector(".progress").dataset.tone = order.progress.tone;
  for (const step of steps) {
    const element = page.querySelector(`.step[data-step="${step.name}"]`);
    element.dataset.state = step.state;
    setText(element.querySelector(".step-state"), step.told);
    if (step.state === "current") element.setAttribute("aria-current", "step");
    else element.removeAttribute("aria-current");
  }
  for (const line of order.lines) renderLine(line, order.progress.final);
}

function renderLine(line, final) {
  const element = page.querySelector(`.line[data-item-id="${CSS.escape(line.item_id)}"]`);
  if (!element) return;
  setText(element.querySelector("h2"), line.product_name);
  setText(element.querySelector(".line-note"), line.note);
  const list = element.querySelector(".keys");
  const pending = element.querySelector(".pending");
  for (const key of line.keys) {
    const known = [...list.children].find((item) => item.dataset.keyId === key.key_id);
    const item = known ?? list.insertBefore(makeKey(key, list.querySelectorAll("[data-key-id]").length + 1), pending);
    const note = item.querySelector(".key-note");
    if (key.open_time) setText(note, `Opened ${localTime(key.open_time)}`);
    if (!known) adopt(item);
  }
  pending.hidden = !line.pending;
  pending.toggleAttribute("data-still", final);
  setText(pending.querySelector("span"), line.pending);
}

function makeKey(key, number) {
  const item = document.getElementById("key-template").content.firstElementChild.cloneNode(true);
  const path = `/keys/${encodeURIComponent(key.key_id)}`;
  item.dataset.keyId = key.key_id;
  item.dataset.linkUrl = `${orderUrl}${path}/download-link`;
  item.querySelector("form").action = `${page.dataset.pageUrl}${path}`;
  item.querySelector(".key-name").textContent = `Key ${number}`;
  item.querySelector(".show .which").textContent = ` ${number}`;
  return item;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
