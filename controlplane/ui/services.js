// The view of services and their backends.

import { edit } from "/changes.js";
import { $, button, keyed, make, pillOf, setAttribute, setHidden, setPill, setText } from "/dom.js";
import { HEALTH_TONE, STATE_TONE, causeText, serves, serving as servingOf } from "/meaning.js";
import { Spark, backendKey, series } from "/rates.js";
import { act, looking } from "/state.js";
import { healthBar } from "/summary.js";
import { DASH, bytesPerSecond, clock, count, figure, perSecond, sinceText } from "/text.js";
import { tlsView } from "/tls.js";

const OPEN_BACKENDS = 50;     // a service with more starts folded, unless it is the only one

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
      setText(cause, causeText(backend));
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
  const tls = tlsView();
  const node = make("article", "service", head, tls.node, table.node);
  table.node.id = `backends-of-${encodeURIComponent(name)}`;
  fold.setAttribute("aria-controls", table.node.id);
  table.node.setAttribute("aria-label", `Backends of ${name}`);
  fold.addEventListener("click", () => {
    folded.set(name, fold.getAttribute("aria-expanded") === "true");
    act.show();
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
      setText(serving.label, `${servingOf(service).length} of ${service.backends.length} serving`);
      bar.update(service.backends);
      setText(rate.label, `${perSecond(known.now("connections"))} new · ${figure(service.active)} active`);
      setText(bytes.label, `${bytesPerSecond(known.now("bytes_in"))} / ${bytesPerSecond(known.now("bytes_out"))}`);
      setText(hits, known.hitRate());
      tls.update(service);
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

export function showServices(status) {
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
