// The views of generations, sources and data planes.

import { askRollback } from "/changes.js";
import { call } from "/daemon.js";
import { $, button, facts, keyed, make, pillOf, setHidden, setPill, setText } from "/dom.js";
import { SOURCE_TONE, heldText, sourceText } from "/meaning.js";
import { looking } from "/state.js";
import { clock, count, sinceText, span, valueText } from "/text.js";

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

export function showHistory(status) {
  // The same content may run under a higher generation than the one that it was given first.
  const running = past.entries.findLast((entry) => entry.hash === status.hash);
  const items = past.entries.toReversed().map((entry) => ({ entry, running: entry === running }));
  keyed($("history-list"), items, ({ entry }) => `${entry.generation} ${entry.when}`, entryView);
  setHidden($("history-none"), items.length > 0);
}

export async function readHistory(status) {
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

export function showSources(status) {
  keyed($("source-list"), status.sources, (each) => each.name, sourceView);
  setHidden($("source-none"), status.sources.length > 0);
}

function drainingView(first) {
  const pill = pillOf(), since = make("span", "muted"), list = make("dl", "facts-list");
  return {
    node: make("li", "", make("div", "card-head", make("h3", "", first.name), pill, since), list),
    update(process) {
      setPill(pill, "draining", "idle");
      setText(since, sinceText(process.since));
      facts(list, [
        ["Process", `pid ${process.pid}`],
        ["Left", count(process.connections, "connection")],
        ["Socket", process.socket],
      ]);
    },
  };
}

export function showPlanes(status) {
  keyed($("plane-list"), status.dataplanes, (each) => each.socket, planeView);
  keyed($("draining-list"), status.draining, (each) => each.socket, drainingView);
  setHidden($("plane-none"), status.dataplanes.length > 0);
}
