// The daemon: calls, the loop that asks for its status, how old that is, and the token.

import { $, setAttribute, setHidden, setText } from "/dom.js";
import { measure } from "/rates.js";
import { act, looking } from "/state.js";
import { nodePill, nodeText } from "/summary.js";
import { clock, daemonClock, span } from "/text.js";

const PERIOD_MS = 1000;
const ANSWER_MS = 8000;       // the daemon itself waits 2 s for a data plane that hangs
const LATE_MS = 3000;         // above it an answer that does not come is news
const CHANGE_MS = 60000;
export const RETRY_MS = [1000, 2000, 4000, 8000, 15000];
const TOKEN = "livelb.token";

class Refused extends Error {
  constructor(status, body) {
    const details = (body.details ?? []).map((each) => `${each.path}: ${each.message}`);
    super([body.message ?? `status ${status}`, ...details].join("; "));
    this.status = status;
  }
}

export function authority() {
  const token = sessionStorage.getItem(TOKEN);
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

/** Make a call; throws Refused, or what fetch throws. */
export async function call(method, path, body) {
  const headers = authority();
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, {
    method, headers, cache: "no-store",
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(method === "GET" ? ANSWER_MS : CHANGE_MS),
  });
  const value = await answer.json();
  if (!answer.ok) throw new Refused(answer.status, value);
  const date = Date.parse(answer.headers.get("Date") ?? "");
  // The header has whole seconds: half of one is what it is off by on average.
  if (!Number.isNaN(date) && Math.abs(date + 500 - Date.now()) > 2000) daemonClock.aheadMs = date + 500 - Date.now();
  else daemonClock.aheadMs = 0;
  return value;
}

let endPause = () => {};

export function pause(ms) {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

export function soon() {
  endPause();
}

/** Resolves once the daemon answers. */
export function good() {
  if (looking.status !== null && looking.failures === 0 && $("gate").hidden && !document.hidden) return Promise.resolve();
  return new Promise((resolve) => looking.waiters.push(resolve));
}

function interruptible(ms) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    endPause = () => {
      clearTimeout(timer);
      // A burst of reasons to look is one reason.
      setTimeout(resolve, 150);
    };
  });
}

async function look() {
  if (looking.access === null || looking.failures > 0) {
    looking.access = await call("GET", "/access.json");
    looking.page ??= looking.access.page;
  }
  const status = await call("GET", "/v1/status");
  measure(status, performance.now() / 1000);
  looking.status = status;
  looking.overrides = new Map(status.overrides.map((each) => [`${each.service}\n${each.id}\n${each.field}`, each]));
  looking.answeredAt = Date.now();
  looking.failures = 0;
  looking.refusal = "";
  setHidden($("gate"), true);
  setHidden($("main"), false);
  showSession();
  act.show();
  showAge();
  for (const resolve of looking.waiters.splice(0)) resolve();
}

/** A failure that is expected now and then: no answer, a refusal, or half an answer. */
function isUsual(error) {
  return error instanceof Refused || error instanceof TypeError || error instanceof DOMException || error instanceof SyntaxError;
}

export async function lookForEver() {
  for (;;) {
    if (document.hidden) {
      await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
      continue;
    }
    const began = performance.now();
    let wait = PERIOD_MS;
    try {
      await look();
      const took = performance.now() - began;
      wait = Math.max(PERIOD_MS, 4 * took);
      looking.due = wait + took;
    } catch (error) {
      if (error.status === 401) {
        await askToken();
        continue;
      }
      looking.refusal = error instanceof Refused ? error.message : "";
      if (!isUsual(error)) console.error(error);
      wait = RETRY_MS[Math.min(looking.failures, RETRY_MS.length - 1)] * (0.75 + Math.random() / 2);
      looking.failures += 1;
      looking.retryAt = Date.now() + wait;
      showAge();
    }
    await interruptible(wait);
  }
}

/** Say how old everything is. */
export function showAge() {
  const age = looking.answeredAt === null ? Infinity : Date.now() - looking.answeredAt;
  const stale = looking.failures > 0 || (age > looking.due + LATE_MS && $("gate").hidden && looking.answeredAt !== null);
  document.body.classList.toggle("stale", stale && looking.status !== null);
  const state = stale ? "stale" : looking.status === null ? "wait" : "live";
  setAttribute($("live"), "data-state", state);
  setText($("live"), { live: "Live", wait: $("gate").hidden ? "Connecting" : "Locked", stale: looking.answeredAt === null ? "No answer" : `As of ${clock(looking.answeredAt)}` }[state]);
  const renewed = looking.access !== null && looking.access.page !== looking.page;
  setHidden($("banner"), !(stale || renewed));
  setAttribute($("banner"), "data-level", stale ? "bad" : "info");
  setText($("banner-retry"), stale ? "Try now" : "Reload");
  if (stale) {
    const since = looking.answeredAt === null ? "The daemon does not answer." : `No answer from the daemon since ${clock(looking.answeredAt)}, ${span(age / 1000)} ago.`;
    const shown = looking.status === null ? "" : " What is shown is from then; data planes go on without it.";
    const next = looking.retryAt > Date.now() ? ` Next try in ${span((looking.retryAt - Date.now()) / 1000 + 1)}.` : " Trying.";
    setText($("banner-text"), since + (looking.refusal && ` It said: ${looking.refusal}.`) + shown + next);
  } else if (renewed) {
    setText($("banner-text"), "The daemon was upgraded, and has a newer version of this page.");
  }
}

// --- the token -------------------------------------------------------------------------------------------------

let tokenGiven = () => {};

export function giveToken(token) {
  sessionStorage.setItem(TOKEN, token);
  tokenGiven();
}

export function forgetToken() {
  sessionStorage.removeItem(TOKEN);
  soon();
}

function askToken() {
  if (sessionStorage.getItem(TOKEN) !== null) setText($("gate-error"), "This token is not accepted.");
  sessionStorage.removeItem(TOKEN);
  setHidden($("main"), true);
  setHidden($("gate"), false);
  setText(nodePill, "");
  setText(nodeText, "");
  for (const end of looking.ends) end.abort();
  looking.failures = 0;
  looking.answeredAt = null;
  looking.status = null;
  showSession();
  showAge();
  $("gate-token").focus();
  return new Promise((resolve) => {
    tokenGiven = resolve;
  });
}

function showSession() {
  const mayChange = looking.access?.changes === "token" && sessionStorage.getItem(TOKEN) !== null;
  document.body.classList.toggle("may-change", mayChange);
  const session = $("session");
  setHidden(session, looking.access === null || !$("gate").hidden);
  setText(session, mayChange ? "Forget token" : "Read-only");
  session.disabled = !mayChange;
  setAttribute(session, "title", mayChange ? null : "Start the daemon with --http-token-file to drain, enable, weigh and roll back from here");
}
