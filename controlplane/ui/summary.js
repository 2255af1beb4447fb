// The top of the page: the node, the figures of all services together, and what needs attention.

import { $, keyed, make, pillOf, setAttribute, setHidden, setPill, setText } from "/dom.js";
import { problems, serving, standing, standingText } from "/meaning.js";
import { Spark, series } from "/rates.js";
import { act } from "/state.js";
import { bytesPerSecond, count, figure, perSecond } from "/text.js";

const SHOWN_PROBLEMS = 10;

function tile(title, ...parts) {
  const node = make("div", "tile", make("h2", "", title), ...parts);
  $("tiles").append(node);
}

export function healthBar() {
  const node = make("div", "health-bar");
  node.setAttribute("role", "img");
  const parts = Object.fromEntries(["up", "unknown", "ejected", "down", "out"].map((word) => [word, node.appendChild(make("i", word))]));
  return {
    node,
    update(backends) {
      for (const [word, part] of Object.entries(parts)) {
        const grow = String(backends.filter((each) => standing(each) === word).length);
        if (part.style.flexGrow !== grow) part.style.flexGrow = grow;
        setHidden(part, grow === "0");
      }
      const words = standingText(backends) || "no backend";
      setAttribute(node, "aria-label", words);
      setAttribute(node, "title", words);
    },
  };
}

const summary = {
  active: make("div", "value"), queued: make("div", "more"), activeSpark: new Spark("active"),
  rate: make("div", "value"), ratePeak: make("div", "more"), rateSpark: new Spark("connections"),
  bytes: make("div", "value"), bytesIn: make("span", "in"), bytesOut: make("span", "out-of"), bytesSpark: new Spark("bytes_in", "bytes_out"),
  hits: make("div", "value"), pooled: make("div", "more"), hitsSpark: new Spark("hits", "misses"),
  serving: make("div", "value"), services: make("div", "more"), bar: healthBar(), standing: make("div", "more"),
};

export function buildSummary() {
  tile("New connections", summary.rate, summary.ratePeak, summary.rateSpark.node);
  tile("Bytes", summary.bytes, make("div", "more", summary.bytesIn, " · ", summary.bytesOut), summary.bytesSpark.node);
  tile("Pool hits, last minute", summary.hits, summary.pooled, summary.hitsSpark.node);
  tile("Active connections", summary.active, summary.queued, summary.activeSpark.node);
  tile("Backends serving", summary.serving, summary.services, summary.bar.node, summary.standing);
}

export function showSummary(status) {
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
  setText(summary.serving, `${services.flatMap(serving).length} of ${backends.length}`);
  setText(summary.services, `in ${count(services.length, "service")}`);
  summary.bar.update(backends);
  setText(summary.standing, standingText(backends));
  for (const spark of [summary.rateSpark, summary.bytesSpark, summary.hitsSpark, summary.activeSpark]) spark.draw(all);
}

let mostProblems = SHOWN_PROBLEMS;

function problemView() {
  const pill = pillOf();
  const link = make("button", "link");
  link.type = "button";
  let view = "services";
  link.addEventListener("click", () => {
    if (view !== "") act.choose(view, true);
    else {
      mostProblems = Infinity;
      act.show();
    }
  });
  return {
    node: make("li", "", pill, make("span", "", link)),
    update(item) {
      setPill(pill, item.word, item.tone);
      setText(link, item.text);
      view = item.view;
    },
  };
}

export function showProblems(status) {
  const found = problems(status);
  const shown = found.slice(0, mostProblems);
  if (found.length > shown.length) {
    shown.push({ key: "more", tone: "idle", word: "more", text: `Show ${found.length - shown.length} more`, view: "" });
  }
  setHidden($("attention-none"), found.length > 0);
  keyed($("attention-list"), shown, (each) => each.key, problemView);
  const serious = found.filter((each) => each.tone !== "idle").length;
  const title = serious ? `(${serious}) livelb` : "livelb";
  if (document.title !== title) document.title = title;
}

export const nodePill = pillOf();
export const nodeText = make("span");

export function showNode(status) {
  setPill(nodePill, status.converged ? "converged" : "not converged", status.converged ? "good" : "warn");
  setText(nodeText, status.generation ? `generation ${status.generation} · ${status.hash.slice(0, 8)}` : "no generation yet");
}
