// Rates of the last minute, and the lines that show them.

import { share } from "/text.js";

const WINDOW_S = 60;          // what a sparkline shows
const SHORTEST_S = 0.5;       // what a rate is measured over, at least
const SMOOTH_S = 3.2;         // what a rate in figures is the mean of

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
export class Spark {
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

export const series = { all: new Series(), services: new Map(), backends: new Map(), planes: "" };

function totalsOf(thing, pools) {
  const totals = { connections: 0, bytes_in: 0, bytes_out: 0, hits: 0, misses: 0 };
  for (const key of ["connections", "bytes_in", "bytes_out"]) totals[key] = thing.totals?.[key] ?? 0;
  for (const pool of pools) {
    totals.hits += pool?.hits ?? 0;
    totals.misses += pool?.misses ?? 0;
  }
  return totals;
}

export function backendKey(service, id) {
  return `${service}\n${id}`;
}

/** Take the counters of an answer in; `at` in seconds. */
export function measure(status, at) {
  const planes = status.dataplanes.filter((each) => each.reachable).map((each) => `${each.name} ${each.instance ?? each.pid}`).join("\n");
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
