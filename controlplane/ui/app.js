// The dashboard: asks the daemon for its status, follows its events, and shows both.
//
// Theory of operation:
//
// 1. One loop asks for the status, the next question a second after the last answer, later if answers are slow.
//    A second loop holds the event stream open; some of its events make the first one ask at once.
// 2. What is shown is a function of the last answer. Nodes are made once for each key and then only written to
//    where a value differs, so that focus, selection and layout stay. Sparklines off the screen are not drawn.
// 3. Rates are differences between two answers. Where the set of data planes changed or a counter fell, there
//    is no difference to take: the line has a gap.
// 4. Without an answer, everything stays as it was, greyed, under a banner that says since when.
// 5. Whatever comes from the API becomes text, never markup; the server's policy forbids the rest.

"use strict";

const WINDOW_S = 60;          // what a sparkline shows
const SHORTEST_S = 0.5;       // what a rate is measured over, at least
const SMOOTH_S = 3.2;         // what a rate in figures is the mean of
const PERIOD_MS = 1000;
const ANSWER_MS = 8000;       // the daemon itself waits 2 s for a data plane that hangs
const LATE_MS = 3000;         // above it an answer that does not come is news
const CHANGE_MS = 60000;
const SILENCE_MS = 30000;     // on the event stream; a heartbeat comes every 10 s
const RETRY_MS = [1000, 2000, 4000, 8000, 15000];
const KEPT_EVENTS = 500;
const OPEN_BACKENDS = 50;     // a service with more starts folded, unless it is the only one
const SHOWN_PROBLEMS = 10;
const TOKEN = "livelb.token";

// --- small tools -----------------------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function setText(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

function setHidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

function setPill(node, word, tone) {
  setText(node, word);
  setAttribute(node, "data-tone", tone);
}

function button(label, className, action) {
  const node = make("button", `button ${className}`, label);
  node.type = "button";
  node.addEventListener("click", action);
  return node;
}

const shownBy = new WeakMap();

/** Make a parent's children those of `items`, in their order; what is there already is updated in place.
 *  `create(item)` returns {node, update(item), gone?()}. */
function keyed(parent, items, keyOf, create) {
  const before = shownBy.get(parent) ?? new Map();
  const after = new Map(items.map((item) => [keyOf(item), item]));
  for (const [key, view] of before) {
    if (!after.has(key)) {
      view.gone?.();
      view.node.remove();
      before.delete(key);
    }
  }
  let place = parent.firstChild;
  for (const [key, item] of after) {
    const view = before.get(key) ?? create(item);
    view.update(item);
    if (view.node === place) place = place.nextSibling;
    else parent.insertBefore(view.node, place);
    after.set(key, view);
  }
  shownBy.set(parent, after);
}

// --- figures and times as text

const DASH = "–";

function figure(value) {
  if (value === null || !Number.isFinite(value)) return DASH;
  if (value >= 1e6) return `${(value / 1e6).toPrecision(3)}M`;
  if (value >= 10000) return `${(value / 1000).toPrecision(3)}k`;
  return value >= 10 || Number.isInteger(value) ? String(Math.round(value)) : String(Number(value.toFixed(1)));
}

function perSecond(value) {
  return value === null ? DASH : `${figure(value)}/s`;
}

function bytesPerSecond(value) {
  if (value === null) return DASH;
  let scaled = value;
  for (const unit of ["B/s", "kB/s", "MB/s"]) {
    if (scaled < 999.5) return `${scaled < 10 && unit !== "B/s" ? scaled.toFixed(1) : Math.round(scaled)} ${unit}`;
    scaled /= 1000;
  }
  return `${scaled.toPrecision(3)} GB/s`;
}

function share(part, whole) {
  return whole > 0 ? `${Math.floor((100 * part) / whole)}%` : DASH;
}

function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  return s < 86400 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
}

function ago(stamp) {
  const at = Date.parse(stamp ?? "");
  return Number.isNaN(at) ? "" : span((Date.now() + looking.skew - at) / 1000);
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

function clock(at) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "";
  const today = date.toDateString() === new Date().toDateString();
  return today ? TIME.format(date) : `${DAY.format(date)}, ${TIME.format(date)}`;
}

function sinceText(stamp) {
  const passed = ago(stamp);
  return passed && `for ${passed}`;
}

// --- rates, and the lines that show them -----------------------------------------------------------------------

const COUNTERS = ["connections", "bytes_in", "bytes_out", "hits", "misses"];

/** The counters of one thing over the last minute. */
class Series {
  constructor() {
    this.samples = [];
    this.last = null;
  }

  take(at, totals, comparable, active) {
    const last = this.last;
    // Two answers in quick succession would make a rate of a handful of connections.
    if (last !== null && comparable && at - last.at < SHORTEST_S) return;
    this.last = { at, totals };
    if (last === null) return;
    const elapsed = at - last.at;
    const fell = COUNTERS.some((key) => totals[key] < last.totals[key]);
    const sample = { at, gap: !comparable || fell || elapsed <= 0, active };
    for (const key of COUNTERS) sample[key] = sample.gap ? 0 : (totals[key] - last.totals[key]) / elapsed;
    sample.elapsed = elapsed;
    this.samples.push(sample);
    while (this.samples[0].at < at - WINDOW_S) this.samples.shift();
  }

  /** The mean of the last seconds; null: nothing is known. */
  now(key) {
    const newest = this.samples.at(-1);
    if (newest === undefined) return null;
    const recent = this.samples.filter((each) => !each.gap && each.at > newest.at - SMOOTH_S);
    return recent.length ? recent.reduce((sum, each) => sum + each[key], 0) / recent.length : null;
  }

  /** Share of the last minute's connections that the pool served. */
  hitRate() {
    let hits = 0;
    let misses = 0;
    for (const each of this.samples) {
      hits += each.hits * each.elapsed;
      misses += each.misses * each.elapsed;
    }
    return share(hits, hits + misses);
  }

  peak(keys) {
    return Math.max(0, ...this.samples.map((each) => Math.max(...keys.map((key) => each[key]))));
  }
}

function line(samples, valueOf, peak) {
  const end = samples.at(-1).at;
  let path = "";
  let drawing = false;
  for (const each of samples) {
    if (each.gap) {
      drawing = false;
      continue;
    }
    const x = 100 - (100 * (end - each.at)) / WINDOW_S;
    const y = 23 - (22 * valueOf(each)) / peak;
    path += `${drawing ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    drawing = true;
  }
  return path;
}

/** A line for each key over the last minute, all in one scale; the first is filled. */
class Spark {
  constructor(...keys) {
    this.keys = keys;
    this.node = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.node.setAttribute("viewBox", "0 0 100 24");
    this.node.setAttribute("preserveAspectRatio", "none");
    this.node.setAttribute("class", "spark");
    this.node.setAttribute("aria-hidden", "true");
    this.area = this.path("area");
    this.lines = keys.map((_, index) => this.path(index ? "second" : "first"));
  }

  path(className) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", className);
    return this.node.appendChild(path);
  }

  draw(series) {
    const samples = series.samples;
    if (samples.length < 2) return;
    const peak = Math.max(series.peak(this.keys), 1);
    this.keys.forEach((key, index) => this.lines[index].setAttribute("d", line(samples, (each) => each[key], peak)));
    // Closed at the edges of each piece between gaps.
    const first = this.lines[0].getAttribute("d");
    const pieces = first.split("M").filter((piece) => piece.includes("L"));
    const closed = pieces.map((piece) => {
      const points = piece.split("L");
      return `M${points[0].split(" ")[0]} 24L${piece}L${points.at(-1).split(" ")[0]} 24Z`;
    });
    this.area.setAttribute("d", closed.join(""));
  }
}

const series = { all: new Series(), services: new Map(), backends: new Map(), planes: "" };

function totalsOf(thing, pools) {
  const totals = { connections: 0, bytes_in: 0, bytes_out: 0, hits: 0, misses: 0 };
  for (const key of ["connections", "bytes_in", "bytes_out"]) totals[key] = thing.totals?.[key] ?? 0;
  for (const pool of pools) {
    totals.hits += pool?.hits ?? 0;
    totals.misses += pool?.misses ?? 0;
  }
  return totals;
}

function backendKey(service, id) {
  return `${service}\n${id}`;
}

/** Take the counters of an answer in; `at` in seconds. */
function measure(status, at) {
  const planes = status.dataplanes.filter((each) => each.reachable).map((each) => `${each.name} ${each.pid}`).join("\n");
  const comparable = planes === series.planes;
  series.planes = planes;
  const all = Object.fromEntries(COUNTERS.map((key) => [key, 0]));
  let active = 0;
  const renew = (kept, key, totals, into) => {
    const known = kept.get(key) ?? new Series();
    known.take(at, totals, comparable, 0);
    into.set(key, known);
  };
  const services = new Map();
  const backends = new Map();
  for (const [name, service] of Object.entries(status.services)) {
    const totals = totalsOf(service, service.backends.map((each) => each.totals?.pool));
    for (const key of COUNTERS) all[key] += totals[key];
    active += service.active;
    renew(series.services, name, totals, services);
    for (const backend of service.backends) {
      renew(series.backends, backendKey(name, backend.id), totalsOf(backend, [backend.totals?.pool]), backends);
    }
  }
  series.services = services;
  series.backends = backends;
  series.all.take(at, all, comparable, active);
}

// --- what an answer means --------------------------------------------------------------------------------------

const HEALTH_TONE = { up: "good", unknown: "idle", ejected: "warn", down: "bad" };
const STATE_TONE = { enabled: "idle", drain: "warn", disabled: "bad" };
const SOURCE_TONE = { ok: "good", stale: "warn", held: "warn", denied: "bad", error: "bad" };

function healthy(backend) {
  return backend.health.state === "up" || backend.health.state === "unknown";
}

function serves(backend) {
  return !backend.removed && backend.state === "enabled" && backend.weight > 0 && healthy(backend);
}

/** The word that a backend counts under in a bar. */
function standing(backend) {
  if (backend.removed || backend.state !== "enabled" || backend.weight === 0) return "out";
  return backend.health.state;
}

function heldText(held) {
  if (!held) return "";
  const why = { empty: "it lists none at all", shrink: "so many at once are not believed", denied: "the token may not see all" };
  const end = held.ends_in_s === null ? "they stay until it lists them again or somebody applies with --force"
    : `they stay until it lists them again, or for another ${span(held.ends_in_s)}`;
  return `Consul lists ${held.seen} and no longer ${held.count} that run here (${why[held.why] ?? held.why}): ${end}.`;
}

function sourceText(source) {
  return heldText(source.held) || source.last_error || source.note || "";
}

/** Everything that somebody should look at, the worst first: [{key, tone, word, text, view}]. */
function problems(status) {
  const found = [];
  const add = (tone, word, text, view) => found.push({ tone, word, text, view, key: `${word}\n${view}\n${text.slice(0, 60)}` });
  if (status.config_error) {
    const { path, message, details = [] } = status.config_error;
    const [first] = details;
    const what = first ? `${first.line ? `line ${first.line}: ` : ""}${first.path}: ${first.message}` : message;
    const more = details.length > 1 ? ` (and ${count(details.length - 1, "more error")})` : "";
    add("bad", "not taken", `${path} is not taken, and what ran before goes on. ${what}${more}`, "sources");
  }
  planeProblems(status, add);
  for (const source of status.sources) {
    const told = status.config_error && source.name.startsWith("file ");
    if (source.state !== "ok" && !told) {
      add(SOURCE_TONE[source.state] ?? "warn", source.state, `${source.name}: ${sourceText(source) || source.state}`, "sources");
    }
  }
  for (const [name, service] of Object.entries(status.services)) serviceProblems(name, service, add);
  if (status.overrides.length) {
    const first = status.overrides.slice(0, 3).map((each) => `${each.service}/${each.id} ${each.field === "weight" ? "weight " : ""}${each.value}`);
    const more = status.overrides.length - first.length;
    const hold = count(status.overrides.length, "operator override holds", "operator overrides hold");
    add("idle", "override", `${hold}: ${first.join(", ")}${more ? ` and ${more} more` : ""}`, "services");
  }
  const order = ["bad", "warn", "idle"];
  return found.sort((one, two) => order.indexOf(one.tone) - order.indexOf(two.tone));
}

function planeProblems(status, add) {
  if (!status.dataplanes.length) add("bad", "no data plane", "No data plane is running on this node, so nothing is served.", "dataplanes");
  let explained = false;
  for (const plane of status.dataplanes) {
    if (!plane.reachable) add("bad", "unreachable", `Data plane ${plane.name}: ${plane.error ?? "does not answer"}. Its figures are ${span(plane.age_s)} old.`, "dataplanes");
    else if (plane.error) add("bad", "refused", `Data plane ${plane.name}: ${plane.error}`, "dataplanes");
    explained ||= !plane.reachable || Boolean(plane.error);
  }
  if (!status.converged && status.dataplanes.length && !explained) {
    add("warn", "not converged", `Not every worker runs generation ${status.generation} yet.`, "dataplanes");
  }
}

function serviceProblems(name, service, add) {
  if (service.backends.length && !service.backends.some(serves)) add("bad", "no backend", `${name}: no backend is usable. Health is ignored, or clients are refused.`, "services");
  else if (service.panic) add("bad", "panic", `${name}: too few backends are usable, so health is ignored.`, "services");
  if (!service.backends.length) add("warn", "empty", `${name} has no backends.`, "services");
  for (const state of ["down", "ejected"]) {
    const bad = service.backends.filter((each) => each.health.state === state && !each.removed);
    if (!bad.length) continue;
    const names = bad.slice(0, 3).map((each) => each.id).join(", ") + (bad.length > 3 ? ` and ${bad.length - 3} more` : "");
    const cause = bad[0].health.cause ? ` (${bad[0].health.cause})` : "";
    add(HEALTH_TONE[state], state, `${name}: ${bad.length} of ${count(service.backends.length, "backend")}: ${names}${cause}`, "services");
  }
  for (const each of service.listeners) {
    if (each.state !== "accepting") add("warn", each.state, `${name}: the listener ${each.address} is ${each.state}.`, "services");
  }
}

// --- the summary -----------------------------------------------------------------------------------------------

function tile(title, ...parts) {
  const node = make("div", "tile", make("h2", "", title), ...parts);
  $("tiles").append(node);
}

function healthBar() {
  const node = make("div", "health-bar");
  const parts = Object.fromEntries(["up", "unknown", "ejected", "down", "out"].map((word) => [word, node.appendChild(make("i", word))]));
  return {
    node,
    update(backends) {
      for (const [word, part] of Object.entries(parts)) {
        const grow = String(backends.filter((each) => standing(each) === word).length);
        if (part.style.flexGrow !== grow) part.style.flexGrow = grow;
        setHidden(part, grow === "0");
      }
    },
  };
}

const summary = {
  active: make("div", "value"), queued: make("div", "more"), activeSpark: new Spark("active"),
  rate: make("div", "value"), ratePeak: make("div", "more"), rateSpark: new Spark("connections"),
  bytes: make("div", "value"), bytesIn: make("span", "in"), bytesOut: make("span", "out-of"), bytesSpark: new Spark("bytes_in", "bytes_out"),
  hits: make("div", "value"), pooled: make("div", "more"), hitsSpark: new Spark("hits", "misses"),
  serving: make("div", "value"), services: make("div", "more"), bar: healthBar(),
};

function buildSummary() {
  tile("New connections", summary.rate, summary.ratePeak, summary.rateSpark.node);
  tile("Bytes", summary.bytes, make("div", "more", summary.bytesIn, " · ", summary.bytesOut), summary.bytesSpark.node);
  tile("Pool hits, last minute", summary.hits, summary.pooled, summary.hitsSpark.node);
  tile("Active connections", summary.active, summary.queued, summary.activeSpark.node);
  tile("Backends serving", summary.serving, summary.services, summary.bar.node);
}

function showSummary(status) {
  const services = Object.values(status.services);
  const backends = services.flatMap((each) => each.backends);
  const sum = (things, key) => things.reduce((total, each) => total + (each[key] ?? 0), 0);
  const all = series.all;
  setText(summary.active, figure(sum(services, "active")));
  const queued = sum(services, "queued");
  setText(summary.queued, queued ? `${queued} waiting for a place` : "nobody waits");
  setText(summary.rate, perSecond(all.now("connections")));
  setText(summary.ratePeak, `peak ${perSecond(all.peak(["connections"]))}`);
  const [bytesIn, bytesOut] = [all.now("bytes_in"), all.now("bytes_out")];
  setText(summary.bytes, bytesPerSecond(bytesIn === null ? null : bytesIn + bytesOut));
  setText(summary.bytesIn, `in ${bytesPerSecond(bytesIn)}`);
  setText(summary.bytesOut, `out ${bytesPerSecond(bytesOut)}`);
  setText(summary.hits, all.hitRate());
  setText(summary.pooled, `${figure(sum(backends, "pooled"))} idle in pools`);
  setText(summary.serving, `${backends.filter(serves).length} of ${backends.length}`);
  setText(summary.services, `in ${count(services.length, "service")}`);
  summary.bar.update(backends);
  for (const spark of [summary.rateSpark, summary.bytesSpark, summary.hitsSpark, summary.activeSpark]) spark.draw(all);
}

function pillOf(className = "pill") {
  return make("span", className);
}

function problemView() {
  const pill = pillOf();
  const link = make("button", "link");
  link.type = "button";
  let view = "services";
  link.addEventListener("click", () => choose(view, true));
  return {
    node: make("li", "", pill, make("span", "", link)),
    update(item) {
      setPill(pill, item.word, item.tone);
      setText(link, item.text);
      view = item.view;
    },
  };
}

function showProblems(status) {
  const found = problems(status);
  const shown = found.slice(0, SHOWN_PROBLEMS);
  if (found.length > shown.length) {
    shown.push({ key: "more", tone: "idle", word: "more", text: `${found.length - shown.length} more like these`, view: "services" });
  }
  setHidden($("attention-none"), found.length > 0);
  keyed($("attention-list"), shown, (each) => each.key, problemView);
  const serious = found.filter((each) => each.tone !== "idle").length;
  const title = serious ? `(${serious}) livelb` : "livelb";
  if (document.title !== title) document.title = title;
}

const nodePill = pillOf();
const nodeText = make("span");

function showNode(status) {
  setPill(nodePill, status.converged ? "converged" : "not converged", status.converged ? "good" : "warn");
  setText(nodeText, status.generation ? `generation ${status.generation} · ${status.hash.slice(0, 8)}` : "no generation yet");
}

// --- services and backends -------------------------------------------------------------------------------------

const folded = new Map();     // service -> what the operator chose
const onScreen = new WeakSet();
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) onScreen.add(entry.target);
    else onScreen.delete(entry.target);
  }
});

const COLUMNS = [
  ["Backend", "c-backend", ""], ["Health", "c-health", ""], ["Operator state", "c-state", ""], ["Weight", "c-number", "num"],
  ["Active", "c-number", "num"], ["New connections", "c-rate", ""], ["Bytes in / out", "c-bytes", ""], ["Pool", "c-pool", ""],
  ["Actions", "c-act", "act"],
];

function tableOf() {
  const head = make("tr");
  for (const [title, width, kind] of COLUMNS) {
    const cell = make("th", `${width} ${kind}`.trim(), title);
    cell.scope = "col";
    head.append(cell);
  }
  const body = make("tbody");
  return { node: make("table", "", make("thead", "", head), body), body };
}

function cell(row, className, label, ...children) {
  const node = make("td", className, ...children);
  if (label) node.dataset.label = label;
  row.append(node);
  return node;
}

function overrideText(service, backend, field) {
  if (!(field in (backend.overridden ?? {}))) return "";
  const word = looking.overrides.get(`${service}\n${backend.id}\n${field}`);
  return `by ${word?.by ?? "an operator"}, ${sinceText(backend.overridden[field].since)}`;
}

function backendView({ service, backend: first }) {
  const row = make("tr");
  const part = (tag = "span", className = "sub") => make(tag, className);
  const id = part("b", ""), address = part();
  const health = pillOf(), since = part("span", "muted"), cause = part();
  const state = pillOf(), stateBy = part();
  const weight = part("span", ""), weightBy = part();
  const active = part("span", ""), rate = part("span", ""), spark = new Spark("connections");
  const bytesIn = part("span", ""), bytesOut = part();
  const pooled = part("span", ""), hits = part();
  cell(row, "wide", "", id, address);
  cell(row, "half health-cell", "Health", health, " ", since, cause);
  cell(row, "half", "Operator state", state, stateBy);
  cell(row, "num", "Weight", weight, weightBy);
  cell(row, "num", "Active", active);
  cell(row, "rate half", "New connections", spark.node, rate);
  cell(row, "half", "Bytes in / out", bytesIn, bytesOut);
  cell(row, "half", "Pool", pooled, hits);
  let current = first;
  const toggle = button("Drain", "small", () => edit(service, current, current.state === "enabled" ? "drain" : "enabled"));
  const change = button("Edit", "small", () => edit(service, current, current.state));
  cell(row, "act", "", toggle, change);
  watcher.observe(row);
  return {
    node: row,
    gone: () => watcher.unobserve(row),
    update({ backend }) {
      current = backend;
      const known = series.backends.get(backendKey(service, backend.id));
      setAttribute(row, "data-backend", `${service}/${backend.id}`);
      setAttribute(row, "class", backend.removed ? "gone" : null);
      setText(id, backend.id);
      const tier = backend.tier ? `tier ${backend.tier}` : "";
      setText(address, [backend.address === backend.id ? "" : backend.address, tier].filter(Boolean).join(" · "));
      setPill(health, backend.health.state, HEALTH_TONE[backend.health.state] ?? "idle");
      setText(since, sinceText(backend.health.since));
      setAttribute(since, "title", backend.health.since ? `since ${clock(backend.health.since)}` : null);
      setText(cause, backend.health.state === "up" ? "" : backend.health.cause);
      setPill(state, backend.removed ? "removed" : backend.state, STATE_TONE[backend.removed ? "drain" : backend.state]);
      setText(stateBy, overrideText(service, backend, "state") || (backend.draining_since ? sinceText(backend.draining_since) : ""));
      setText(weight, String(backend.weight));
      setText(weightBy, overrideText(service, backend, "weight"));
      setText(active, figure(backend.active));
      setText(rate, perSecond(known.now("connections")));
      setText(bytesIn, bytesPerSecond(known.now("bytes_in")));
      setText(bytesOut, bytesPerSecond(known.now("bytes_out")));
      setText(pooled, `${figure(backend.pooled)} idle`);
      setText(hits, known.hitRate() === DASH ? "" : `${known.hitRate()} hits`);
      const enabled = backend.state === "enabled";
      setText(toggle, enabled ? "Drain" : "Enable");
      setAttribute(toggle, "aria-label", `${enabled ? "Drain" : "Enable"} ${service}/${backend.id}`);
      setAttribute(change, "aria-label", `Edit ${service}/${backend.id}`);
      setHidden(toggle, Boolean(backend.removed));
      setHidden(change, Boolean(backend.removed));
      if (onScreen.has(row)) spark.draw(known);
    },
  };
}

function metric(...children) {
  const label = make("span", "label");
  return { node: make("div", "metric", label, ...children), label };
}

function serviceView({ name }) {
  const fold = make("button", "", name);
  fold.type = "button";
  const facts = make("div", "facts");
  const mode = make("span"), addresses = make("span", "mono"), panic = pillOf(), tier = pillOf(), queued = pillOf();
  facts.append(mode, addresses, panic, tier, queued);
  const bar = healthBar(), rateSpark = new Spark("connections"), bytesSpark = new Spark("bytes_in", "bytes_out");
  const serving = metric(bar.node), rate = metric(rateSpark.node), bytes = metric(bytesSpark.node);
  const hits = make("b"), pool = metric(hits);
  setText(pool.label, "Pool hits");
  const head = make("header", "service-head", make("div", "", make("h3", "", fold), facts), serving.node, rate.node, bytes.node, pool.node);
  const table = tableOf();
  const node = make("article", "service", head, table.node);
  table.node.id = `backends-of-${encodeURIComponent(name)}`;
  fold.setAttribute("aria-controls", table.node.id);
  table.node.setAttribute("aria-label", `Backends of ${name}`);
  fold.addEventListener("click", () => {
    folded.set(name, fold.getAttribute("aria-expanded") === "true");
    show();
  });
  watcher.observe(node);
  return {
    node,
    gone: () => watcher.unobserve(node),
    update({ service, rows, open }) {
      const known = series.services.get(name);
      setText(mode, service.mode);
      setText(addresses, service.listeners.map((each) => each.address + (each.state === "accepting" ? "" : ` (${each.state})`)).join(" "));
      setHidden(panic, !service.panic);
      setPill(panic, "panic: health ignored", "bad");
      setHidden(tier, !service.tier);
      setPill(tier, `tier ${service.tier} serves`, "warn");
      setHidden(queued, !service.queued);
      setPill(queued, `${service.queued} waiting`, "warn");
      setText(serving.label, `${service.backends.filter(serves).length} of ${service.backends.length} serving`);
      bar.update(service.backends);
      setText(rate.label, `${perSecond(known.now("connections"))} new · ${figure(service.active)} active`);
      setText(bytes.label, `${bytesPerSecond(known.now("bytes_in"))} / ${bytesPerSecond(known.now("bytes_out"))}`);
      setText(hits, known.hitRate());
      if (onScreen.has(node)) {
        rateSpark.draw(known);
        bytesSpark.draw(known);
      }
      setAttribute(fold, "aria-expanded", String(open));
      setHidden(table.node, !open);
      keyed(table.body, open ? rows : [], (each) => each.backend.id, backendView);
    },
  };
}

function wantedRows(name, service, words, show) {
  const kept = service.backends.filter((backend) => {
    if (show === "trouble" && serves(backend)) return false;
    if (show === "override" && !Object.keys(backend.overridden ?? {}).length) return false;
    const text = `${name} ${backend.id} ${backend.address}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  return kept.map((backend) => ({ service: name, backend }));
}

function showServices(status) {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = $("show").value;
  const filtering = words.length > 0 || wanted !== "all";
  const all = Object.entries(status.services);
  const items = all.map(([name, service]) => {
    const rows = wantedRows(name, service, words, wanted);
    const usual = filtering || all.length === 1 || service.backends.length <= OPEN_BACKENDS;
    return { name, service, rows, open: !(folded.get(name) ?? !usual) };
  }).filter((each) => !filtering || each.rows.length);
  keyed($("service-list"), items, (each) => each.name, serviceView);
  const number = items.reduce((sum, each) => sum + each.rows.length, 0);
  setText($("shown"), filtering ? `${count(number, "backend")} shown` : "");
  setHidden($("service-none"), items.length > 0);
  setText($("service-none"), filtering ? "No backend matches." : "No service yet. Apply an lb.yaml, and it appears here.");
}

// --- events ----------------------------------------------------------------------------------------------------

const events = { all: new Map(), paused: false, state: "" };   // by their text: what is told twice is shown once
const QUIET = new Set(["dataplanes"]);
const BAD = /_down$|eject|died|fail|refused|unusable|not_saved|no_backend|unresolved|local_error|orphaned|^panic$/;
const MILD = /drain|stopp|override|restart|takeover|dropped/;
const FINE = /_up$|reinstated|panic_over|applied|generation|started|resolved|drained/;

function toneOf(type) {
  if (BAD.test(type)) return "bad";
  if (FINE.test(type)) return "good";
  return MILD.test(type) ? "warn" : "idle";
}

function valueText(value) {
  if (value === null || typeof value !== "object") return String(value);
  return JSON.stringify(value);
}

function eventText(event) {
  const { type, at, service, backend, dataplane, cause, ...rest } = event;
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

function takeEvent(text) {
  let event;
  try {
    event = JSON.parse(text);
  } catch {
    return;
  }
  if (event === null || typeof event !== "object" || typeof event.type !== "string") return;
  if (QUIET.has(event.type) || event.type === "generation") looking.soon();
  if (QUIET.has(event.type) || events.all.has(text)) return;
  events.all.set(text, event);
  if (events.all.size > KEPT_EVENTS) events.all.delete(events.all.keys().next().value);
  showEventsSoon();
}

let eventsDue = false;

function showEventsSoon() {
  if (eventsDue) return;
  eventsDue = true;
  requestAnimationFrame(() => {
    eventsDue = false;
    if (!events.paused && chosen === "events") showEvents();
  });
}

function showEvents() {
  const words = $("event-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const items = [...events.all].map(([key, event]) => ({ key, event }))
    .filter(({ key }) => words.every((word) => key.toLowerCase().includes(word)))
    .sort((one, two) => (two.event.at ?? "").localeCompare(one.event.at ?? ""));
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

async function followForEver() {
  for (;;) {
    await looking.good();
    try {
      await follow();
    } catch {
      // What is wrong shows in the status loop; here it only means to try again.
    }
    eventsAre("not connected, trying again");
    await pause(RETRY_MS[0] * (1 + Math.random()));
  }
}

// --- generations -----------------------------------------------------------------------------------------------

const past = { of: null, entries: [], error: "" };

function changeText(change) {
  const what = [change.service, change.id ?? change.address].filter(Boolean).join("/");
  const fields = Object.entries(change.fields ?? {}).map(([key, { from, to }]) => `${key} ${valueText(from)} → ${valueText(to)}`);
  return `${change.kind} ${what}${fields.length ? `: ${fields.join(", ")}` : ""}`;
}

function diffOf(entry) {
  const list = make("ul", "diff");
  for (const change of entry.changes) {
    const item = make("li", "", make("span", "", changeText(change)));
    item.dataset.action = change.action;
    list.append(item);
  }
  if (entry.more) list.append(make("li", "", make("span", "", `and ${entry.more} more that were not kept`)));
  return list;
}

function entryView({ entry }) {
  const current = pillOf();
  setPill(current, "runs now", "good");
  const when = make("span", "muted");
  const head = make("div", "card-head", make("h3", "", `Generation ${entry.generation}`), current, when);
  const back = button("Roll back to this", "small needs-token", () => askRollback(entry));
  head.append(back);
  const node = make("li", "", head);
  const short = entry.changes.length <= 8;
  const who = entry.by.startsWith(entry.origin) ? entry.by : `${entry.origin} by ${entry.by}`;
  if (!entry.changes.length) node.append(make("p", "muted", "No change of services or backends."));
  else if (short) node.append(diffOf(entry));
  else {
    // Two hundred lines are made when somebody wants them.
    const details = make("details", "", make("summary", "", count(entry.changes.length + entry.more, "change")));
    details.addEventListener("toggle", () => details.children.length === 1 && details.append(diffOf(entry)));
    node.append(details);
  }
  return {
    node,
    update({ running }) {
      setHidden(current, !running);
      setHidden(back, running);
      setText(when, [clock(entry.when), who, entry.hash.slice(0, 8)].join(" · "));
    },
  };
}

function showHistory(status) {
  const items = past.entries.toReversed().map((entry) => ({ entry, running: entry.generation === status.generation }));
  keyed($("history-list"), items, ({ entry }) => `${entry.generation} ${entry.when}`, entryView);
  setHidden($("history-none"), items.length > 0);
}

async function readHistory(status) {
  const wanted = `${status.generation} ${status.hash}`;
  if (past.of === wanted) return;
  past.of = wanted;
  try {
    past.entries = (await call("GET", "/v1/history")).history;
    showHistory(status);
  } catch {
    past.of = null;
  }
}

// --- sources and data planes -----------------------------------------------------------------------------------

function facts(list, pairs) {
  const known = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  keyed(list, known, ([title]) => title, ([title]) => {
    const value = make("dd");
    const node = make("div", "pair-of-facts", make("dt", "", title), value);
    return { node, update: ([, text]) => setText(value, text) };
  });
}

function remarkList(remarks) {
  return (remarks ?? []).map((each) => `${each.id}: ${each.why}`).join("; ");
}

function sourceView(first) {
  const pill = pillOf(), since = make("span", "muted"), text = make("p"), list = make("dl", "facts-list");
  return {
    node: make("li", "", make("div", "card-head", make("h3", "", first.name), pill, since), text, list),
    update(source) {
      setPill(pill, source.state, SOURCE_TONE[source.state] ?? "warn");
      setText(since, sinceText(source.since));
      setText(text, sourceText(source));
      setHidden(text, !text.textContent);
      const held = source.held;
      const counts = Object.entries(source.counts ?? {}).filter(([, number]) => number).map(([word, number]) => `${number} ${word}`);
      facts(list, [
        ["Last error", heldText(held) ? source.last_error : ""],
        ["Used by", (source.services ?? []).join(", ")],
        ["Held back", held ? held.missing.join(", ") + (held.count > held.missing.length ? ` and ${held.count - held.missing.length} more` : "") : ""],
        ["Held since", held ? clock(held.since) : ""],
        ["Instances", counts.join(", ")],
        ["Skipped", remarkList(source.rejected)],
        ["Remarks", remarkList(source.warnings)],
        ["Answer", source.age_s === undefined || source.age_s === null ? "" : `${span(source.age_s)} old${source.source === "saved" ? ", from disk" : ""}`],
      ]);
    },
  };
}

function planeView(first) {
  const pill = pillOf(), seen = make("span", "muted"), error = make("p", "error"), list = make("dl", "facts-list");
  return {
    node: make("li", "", make("div", "card-head", make("h3", "", first.name), pill, seen), error, list),
    update(plane) {
      const agrees = plane.hash === looking.status.hash && plane.generation === looking.status.generation;
      if (!plane.reachable) setPill(pill, "unreachable", "bad");
      else setPill(pill, agrees ? "agrees" : "differs", agrees ? "good" : "warn");
      setText(seen, plane.reachable ? "" : `as it was ${span(plane.age_s)} ago`);
      setText(error, plane.error ?? "");
      const workers = plane.workers.map((each) => `${each.index}: pid ${each.pid}, ${count(each.active, "connection")}${each.hash === plane.hash ? "" : ", another generation"}`);
      facts(list, [
        ["Generation", plane.generation === null ? "" : `${plane.generation} · ${(plane.hash ?? "").slice(0, 8)}`],
        ["Process", plane.pid === null ? "" : `pid ${plane.pid}`],
        ["Workers", workers.join("; ")],
        ["Socket", plane.socket],
      ]);
    },
  };
}

function showSources(status) {
  keyed($("source-list"), status.sources, (each) => each.name, sourceView);
  setHidden($("source-none"), status.sources.length > 0);
}

function showPlanes(status) {
  keyed($("plane-list"), status.dataplanes, (each) => each.socket, planeView);
  setHidden($("plane-none"), status.dataplanes.length > 0);
}

// --- views -----------------------------------------------------------------------------------------------------

const VIEWS = {
  services: showServices,
  events: () => events.paused || showEvents(),
  history: (status) => {
    showHistory(status);
    void readHistory(status);
  },
  sources: showSources,
  dataplanes: showPlanes,
};
let chosen = "services";

function choose(view, focus = false) {
  chosen = view in VIEWS ? view : "services";
  for (const each of Object.keys(VIEWS)) {
    const tab = $(`tab-${each}`);
    tab.setAttribute("aria-selected", String(each === chosen));
    tab.tabIndex = each === chosen ? 0 : -1;
    setHidden($(each), each !== chosen);
  }
  if (location.hash !== `#${chosen}`) history.replaceState(null, "", `#${chosen}`);
  show();
  if (focus) $(`tab-${chosen}`).focus();
}

function onTabKey(event) {
  const names = Object.keys(VIEWS);
  const at = names.indexOf(chosen);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: names.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  choose(names.at(to % names.length), true);
}

/** Show the last answer. */
function show() {
  const status = looking.status;
  if (status === null) return;
  showNode(status);
  showSummary(status);
  showProblems(status);
  VIEWS[chosen](status);
}

// --- changes ---------------------------------------------------------------------------------------------------

const editing = { service: "", backend: null };

function impactText(service, backend, wanted) {
  if (wanted === "enabled") return ["", ""];
  const others = looking.status.services[service].backends.filter((each) => each.id !== backend.id && serves(each)).length;
  const inPlace = backend.active ? `${count(backend.active, "connection is", "connections are")} in place. ` : "No connection is in place. ";
  if (!others) return [`${inPlace}No other backend of ${service} is usable: new clients will be refused.`, "bad"];
  return [`${inPlace}New clients go to the ${others === 1 ? "other usable backend" : `${others} other usable backends`} of ${service}.`, ""];
}

function showImpact() {
  const wanted = $("backend-form").elements.state.value;
  const [text, tone] = impactText(editing.service, editing.backend, wanted);
  setText($("backend-impact"), text);
  setAttribute($("backend-impact"), "data-tone", tone);
  const words = { enabled: "Enable", drain: "Drain", disabled: "Disable" };
  setText($("backend-submit"), wanted === editing.backend.state ? "Apply" : words[wanted]);
}

function edit(service, backend, wanted) {
  editing.service = service;
  editing.backend = backend;
  setText($("backend-title"), `${service} / ${backend.id}`);
  setText($("backend-now"), `${backend.address} · ${backend.health.state} · ${backend.state} · weight ${backend.weight}`);
  $("backend-form").elements.state.value = wanted;
  $("backend-weight").value = String(backend.weight);
  setText($("backend-error"), "");
  showImpact();
  $("backend-dialog").showModal();
  $("backend-submit").focus();
}

function failureText(problem) {
  if (problem.name === "TimeoutError") return "No answer in time. What became of it shows here as soon as the daemon answers.";
  if (problem instanceof TypeError) return "The daemon cannot be reached; nothing is known to have changed.";
  return problem.message;
}

async function submitting(dialog, submit, error, work) {
  submit.disabled = true;
  setText(error, "");
  try {
    toast(await work(), "");
    dialog.close();
  } catch (problem) {
    setText(error, failureText(problem));
  } finally {
    submit.disabled = false;
    looking.soon();
  }
}

function resultText(done, report) {
  const failed = report.dataplanes.filter((each) => each.result !== "ok");
  const warnings = report.warnings ?? [];
  if (failed.length) return `${done}, but not everywhere yet: ${failed.map((each) => `${each.name}: ${each.error}`).join("; ")}`;
  const where = report.dataplanes.length ? `${done} on ${count(report.dataplanes.length, "data plane")}.` : `${done}; no data plane is running.`;
  return [where, ...warnings].join(" ");
}

async function submitBackend() {
  const { service, backend } = editing;
  const state = $("backend-form").elements.state.value;
  const weight = Number($("backend-weight").value);
  const fields = {};
  if (state !== backend.state) fields.state = state;
  if (weight !== backend.weight) fields.weight = weight;
  if (!Object.keys(fields).length) throw new Error("Nothing is changed.");
  const path = `/v1/services/${encodeURIComponent(service)}/backends/${encodeURIComponent(backend.id)}`;
  const report = await call("PATCH", path, fields);
  const words = Object.entries(fields).map(([key, value]) => `${key} ${value}`).join(", ");
  return resultText(`${service}/${backend.id}: ${words}`, report);
}

let rollingTo = null;

function askRollback(entry) {
  rollingTo = entry;
  setText($("rollback-title"), `Roll back to generation ${entry.generation}?`);
  setText($("rollback-error"), "");
  $("rollback-dialog").showModal();
}

async function submitRollback() {
  const report = await call("POST", "/v1/rollback", { generation: rollingTo.generation });
  return resultText(`Generation ${report.generation} has the content of ${report.restored}`, report);
}

let toastEnds = 0;

function toast(text, tone) {
  setAttribute($("toast"), "data-tone", tone);
  setHidden($("toast"), false);
  setText($("toast"), text);
  clearTimeout(toastEnds);
  toastEnds = setTimeout(() => setHidden($("toast"), true), 7000);
}

// --- the daemon ------------------------------------------------------------------------------------------------

class Refused extends Error {
  constructor(status, body) {
    const details = (body.details ?? []).map((each) => `${each.path}: ${each.message}`);
    super([body.message ?? `status ${status}`, ...details].join("; "));
    this.status = status;
  }
}

function authority() {
  const token = sessionStorage.getItem(TOKEN);
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

/** Make a call; throws Refused, or what fetch throws. */
async function call(method, path, body) {
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
  if (!Number.isNaN(date) && Math.abs(date + 500 - Date.now()) > 2000) looking.skew = date + 500 - Date.now();
  else looking.skew = 0;
  return value;
}

let endPause = () => {};

function pause(ms) {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

const looking = {
  status: null,
  overrides: new Map(),
  skew: 0,               // what the daemon's clock is ahead of ours, in ms
  access: null,
  page: null,
  answeredAt: null,      // Date.now() of the last answer
  failures: 0,
  retryAt: 0,
  due: PERIOD_MS,        // how old an answer gets while all is well, in ms
  refusal: "",
  ends: new Set(),
  waiters: [],

  soon() {
    endPause();
  },

  /** Resolves once the daemon answers. */
  good() {
    if (this.status !== null && this.failures === 0 && $("gate").hidden && !document.hidden) return Promise.resolve();
    return new Promise((resolve) => this.waiters.push(resolve));
  },

  interruptible(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      endPause = () => {
        clearTimeout(timer);
        // A burst of reasons to look is one reason.
        setTimeout(resolve, 150);
      };
    });
  },

  async look() {
    if (this.access === null || this.failures > 0) {
      this.access = await call("GET", "/access.json");
      this.page ??= this.access.page;
    }
    const status = await call("GET", "/v1/status");
    measure(status, performance.now() / 1000);
    this.status = status;
    this.overrides = new Map(status.overrides.map((each) => [`${each.service}\n${each.id}\n${each.field}`, each]));
    this.answeredAt = Date.now();
    this.failures = 0;
    this.refusal = "";
    setHidden($("gate"), true);
    setHidden($("main"), false);
    showSession();
    show();
    showAge();
    for (const resolve of this.waiters.splice(0)) resolve();
  },

  async run() {
    for (;;) {
      if (document.hidden) {
        await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
        continue;
      }
      const began = performance.now();
      let wait = PERIOD_MS;
      try {
        await this.look();
        const took = performance.now() - began;
        wait = Math.max(PERIOD_MS, 4 * took);
        this.due = wait + took;
      } catch (error) {
        if (error.status === 401) {
          await askToken();
          continue;
        }
        this.refusal = error instanceof Refused ? error.message : "";
        if (!(error instanceof Refused) && !(error instanceof TypeError) && !(error instanceof DOMException) && !(error instanceof SyntaxError)) console.error(error);
        wait = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)] * (0.75 + Math.random() / 2);
        this.failures += 1;
        this.retryAt = Date.now() + wait;
        showAge();
      }
      await this.interruptible(wait);
    }
  },
};

/** Say how old everything is. */
function showAge() {
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

// --- beginning -------------------------------------------------------------------------------------------------

function onKey(event) {
  const typing = event.target.closest("input, select, textarea, dialog");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && looking.status !== null) {
    event.preventDefault();
    choose("services");
    $("filter").focus();
  }
}

function begin() {
  $("node").append(nodePill, nodeText);
  buildSummary();
  for (const each of Object.keys(VIEWS)) $(`tab-${each}`).addEventListener("click", () => choose(each));
  document.querySelector("[role=tablist]").addEventListener("keydown", onTabKey);
  choose(location.hash.slice(1));
  window.addEventListener("hashchange", () => choose(location.hash.slice(1)));
  document.addEventListener("keydown", onKey);
  $("filter").addEventListener("input", show);
  $("show").addEventListener("change", show);
  $("event-filter").addEventListener("input", showEvents);
  $("event-pause").addEventListener("click", () => {
    events.paused = !events.paused;
    setAttribute($("event-pause"), "aria-pressed", String(events.paused));
    setText($("event-pause"), events.paused ? "Resume" : "Pause");
    showEvents();
  });
  $("banner-retry").addEventListener("click", () => (looking.failures > 0 ? looking.soon() : location.reload()));
  $("gate-form").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN, $("gate-token").value.trim());
    $("gate-token").value = "";
    setText($("gate-error"), "");
    tokenGiven();
  });
  $("session").addEventListener("click", () => {
    sessionStorage.removeItem(TOKEN);
    looking.soon();
  });
  $("backend-form").addEventListener("change", showImpact);
  $("backend-form").addEventListener("submit", (event) => {
    event.preventDefault();
    void submitting($("backend-dialog"), $("backend-submit"), $("backend-error"), submitBackend);
  });
  $("rollback-form").addEventListener("submit", (event) => {
    event.preventDefault();
    void submitting($("rollback-dialog"), $("rollback-submit"), $("rollback-error"), submitRollback);
  });
  for (const each of document.querySelectorAll("[data-close]")) each.addEventListener("click", () => each.closest("dialog").close());
  document.addEventListener("visibilitychange", () => {
    // A browser opens six connections to one host: tabs that nobody sees hold none.
    if (document.hidden) for (const end of looking.ends) end.abort();
  });
  setInterval(showAge, 1000);
  void looking.run();
  void followForEver();
}

begin();
