// The view of events, and the stream that they come from.

import { RETRY_MS, authority, good, pause, soon } from "/daemon.js";
import { $, keyed, make, pillOf, setHidden, setPill, setText } from "/dom.js";
import { looking } from "/state.js";
import { clock, count, valueText } from "/text.js";

const SILENCE_MS = 30000;     // on the event stream; a heartbeat comes every 10 s
const KEPT_EVENTS = 500;

export const events = { all: new Map(), paused: false, state: "" };   // by their id: what is told twice is shown once
const QUIET = new Set(["dataplanes"]);
const BAD = /_down$|_unreachable$|eject|died|fail|refused|unusable|no_usable|unhandled|not_saved|no_backend|unresolved|local_error|orphaned|^panic$/;
const MILD = /drain|stopp|override|restart|takeover|dropped|terminated|lost/;
const FINE = /_up$|_reachable$|reinstated|panic_over|applied|generation|started|resolved|drained|again$|ready$|_saved$|_ended$/;

function toneOf(type) {
  if (BAD.test(type)) return "bad";
  if (FINE.test(type)) return "good";
  return MILD.test(type) ? "warn" : "idle";
}

function eventText(event) {
  const { type, at, id, service, backend, dataplane, cause, ...rest } = event;
  const subject = [service, backend].filter(Boolean).join("/");
  const facts = Object.entries(rest).map(([key, value]) => `${key} ${key === "hash" ? String(value).slice(0, 8) : valueText(value)}`);
  return { subject, text: [cause, ...facts, dataplane && `on ${dataplane}`].filter(Boolean).join(" · ") };
}

function eventView({ event }) {
  const time = make("time", "", clock(event.at));
  time.dateTime = event.at ?? "";
  const pill = pillOf();
  setPill(pill, event.type.replaceAll("_", " "), toneOf(event.type));
  const { subject, text } = eventText(event);
  const what = make("span", "what", make("b", "", subject), subject ? " " : "", text);
  return { node: make("li", "", time, make("span", "", pill), what), update() {} };
}

export function takeEvent(text) {
  let event;
  try {
    event = JSON.parse(text);
  } catch {
    return;
  }
  if (event === null || typeof event !== "object" || typeof event.type !== "string") return;
  if (QUIET.has(event.type) || event.type === "generation") soon();
  const known = event.id ?? text;
  if (QUIET.has(event.type) || events.all.has(known)) return;
  events.all.set(known, event);
  if (events.all.size > KEPT_EVENTS) events.all.delete(events.all.keys().next().value);
  showEventsSoon();
}

let eventsDue = false;

function showEventsSoon() {
  if (eventsDue) return;
  eventsDue = true;
  requestAnimationFrame(() => {
    eventsDue = false;
    if (!events.paused && !$("events").hidden) showEvents();
  });
}

export function showEvents() {
  const words = $("event-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  // In the order in which they came: a clock may be set back, and what happens then is new all the same.
  const items = [...events.all].map(([key, event]) => ({ key, event, text: JSON.stringify(event).toLowerCase() })).reverse()
    .filter(({ text }) => words.every((word) => text.includes(word)));
  keyed($("event-list"), items, (each) => each.key, eventView);
  setHidden($("event-none"), items.length > 0);
  setText($("event-state"), [events.state, events.paused ? "paused" : count(items.length, "event")].filter(Boolean).join(" · "));
}

function eventsAre(state) {
  events.state = state;
  showEventsSoon();
}

/** Hold the event stream open until it ends. */
async function follow() {
  const end = new AbortController();
  looking.ends.add(end);
  let silence = setTimeout(() => end.abort(), SILENCE_MS);
  try {
    const answer = await fetch("/v1/events?remembered=true", { headers: authority(), signal: end.signal, cache: "no-store" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let pending = "";
    eventsAre("");
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(() => end.abort(), SILENCE_MS);
      const blocks = (pending + value).split("\n\n");
      pending = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").find((each) => each.startsWith("data: "));
        if (data) takeEvent(data.slice(6));
      }
    }
  } finally {
    clearTimeout(silence);
    looking.ends.delete(end);
  }
}

export async function followForEver() {
  for (;;) {
    await good();
    try {
      await follow();
    } catch {
      // What is wrong shows in the status loop; here it only means to try again.
    }
    eventsAre("not connected, trying again");
    await pause(RETRY_MS[0] * (1 + Math.random()));
  }
}
