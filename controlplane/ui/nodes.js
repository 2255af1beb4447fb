// The view of the cluster's nodes: asked for while it is looked at.

import { call } from "/daemon.js";
import { $, facts, keyed, make, pillOf, setHidden, setPill, setText } from "/dom.js";
import { clock, count, sinceText, span } from "/text.js";

const TONE = { live: "good", gone: "bad", left: "idle", unreadable: "bad" };
const MEANS = {
  gone: "Its session in Consul has ended: its daemon was killed, the machine is off, or it does not reach Consul. Its data planes may still serve.",
  left: "Its daemon has ended in good order.",
};
const known = { report: null, asking: false };

function wrongOf(node) {
  const wrong = node.problem ? [`Its record cannot be read: ${node.problem}`] : [];
  if (node.behind) wrong.push(`Behind: ${node.behind}`);
  return [...wrong, ...node.disagrees.map((each) => `Disagrees in ${each}`)];
}

function nodeView(first) {
  const presence = pillOf(), runs = pillOf(), ready = pillOf(), since = make("span", "muted");
  const wrong = make("p", "error"), means = make("p", "muted"), list = make("dl", "facts-list");
  return {
    node: make("li", "", make("div", "card-head", make("h3", "", first.name), presence, runs, ready, since), wrong, means, list),
    update(node) {
      const record = node.record, isLive = node.presence === "live";
      setPill(presence, node.presence, TONE[node.presence] ?? "warn");
      const differs = node.behind !== null || node.disagrees.length > 0;
      if (!isLive) setPill(runs, "", "idle");
      else if (differs) setPill(runs, node.behind === null ? "disagrees" : "behind", "bad");
      else setPill(runs, record.canary ? "canary" : "same as all", record.canary ? "warn" : "good");
      if (!isLive) setPill(ready, "", "idle");
      else setPill(ready, record.ready ? "ready" : "not ready", record.ready ? "good" : record.drain ? "idle" : "bad");
      setText(since, isLive ? "" : sinceText(node.since));
      setText(wrong, wrongOf(node).join("; "));
      setHidden(wrong, !wrong.textContent);
      setText(means, MEANS[node.presence] ?? "");
      setHidden(means, !means.textContent);
      facts(list, record === null ? [] : [
        ["Ready", isLive ? `${record.ready ? "yes" : "no"}, ${sinceText(record.since)}${record.reason ? `: ${record.reason}` : ""}` : ""],
        ["Drained", record.drain ? `by ${record.drain.by}, ${sinceText(record.drain.since)}: ${record.drain.phase}` : ""],
        ["Canary", record.canary ?? ""],
        ["lb.yaml", [record.content?.slice(0, 12), record.key && `from ${record.key}`].filter(Boolean).join(" ")],
        ["Runs", `generation ${record.generation} · ${record.hash.slice(0, 8)}`],
        ["Clients", isLive ? count(record.active, "connection") : ""],
        ["Limits", record.share === null ? "" : `divided by ${record.share}`],
        ["Version", record.livelb],
        ["API", record.address ?? ""],
        ["Said last", clock(record.at)],
      ]);
    },
  };
}

function draw() {
  const report = known.report;
  if (report === null) return;
  const live = report.nodes.filter((each) => each.presence === "live").length;
  const head = report.known
    ? `Cluster ${report.cluster}: ${live} of ${count(report.nodes.length, "node")} live; ${report.converged ? "all live ones run the same" : "not all run the same"}. Seen from ${report.node}.`
    : `Cluster ${report.cluster}: nothing is known of its nodes yet.`;
  setText($("nodes-head"), head);
  const old = report.known ? `This picture is ${span(report.age_s)} old: ` : "";
  setText($("nodes-error"), report.error ? `${old}${report.error}. What runs goes on without Consul.` : "");
  setHidden($("nodes-error"), !report.error);
  keyed($("node-list"), report.nodes, (each) => each.name, nodeView);
}

export const CLUSTER_SOURCE = "consul-cluster";

/** Show what is known, and ask for what is new; the next answer of the daemon comes by here again. */
export async function showNodes(status) {
  const belongs = status.sources.some((each) => each.name === CLUSTER_SOURCE);
  setHidden($("nodes-none"), belongs);
  setHidden($("nodes-some"), !belongs);
  if (!belongs || known.asking) return;
  known.asking = true;
  try {
    known.report = await call("GET", "/v1/nodes");
  } catch {
    // What is wrong shows in the status loop; here it only means to try again.
  } finally {
    known.asking = false;
  }
  draw();
}
