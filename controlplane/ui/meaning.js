// What a status means: tones, who serves, and what somebody should look at.

import { ago, count, daemonClock, span } from "/text.js";

export const HEALTH_TONE = { up: "good", unknown: "idle", ejected: "warn", down: "bad" };
export const STATE_TONE = { enabled: "idle", drain: "warn", disabled: "bad" };
export const SOURCE_TONE = { ok: "good", stale: "warn", held: "warn", denied: "bad", error: "bad" };

function healthy(backend) {
  return backend.health.state === "up" || backend.health.state === "unknown";
}

export function serves(backend) {
  return !backend.removed && backend.state === "enabled" && backend.weight > 0 && healthy(backend);
}

/** Who of a service gets new connections: in panic also backends that are only reachable. */
export function serving(service) {
  const healthyOnes = service.backends.filter(serves);
  if (!service.panic) return healthyOnes;
  // With nobody healthy, health is ignored in all tiers, else in the one that serves.
  const ignored = (each) => !healthyOnes.length || each.tier === service.tier;
  return service.backends.filter((each) => serves(each) || (standing(each) !== "out" && each.health.reachable !== false && ignored(each)));
}

/** Why a backend is not healthy, and if so that it can be reached; "" for one that is. */
export function causeText(backend) {
  const { state, cause, reachable } = backend.health;
  if (state === "up" || !cause) return "";
  return reachable && state !== "unknown" ? `${cause}, but reachable` : cause;
}

/** The word that a backend counts under in a bar. */
export function standing(backend) {
  if (backend.removed || backend.state !== "enabled" || backend.weight === 0) return "out";
  return backend.health.state;
}

/** How many are in which condition, in words: "1 up, 1 down, 1 drained". */
export function standingText(backends) {
  const words = { up: 0, unknown: 0, ejected: 0, down: 0, drained: 0, disabled: 0, removed: 0, "of weight 0": 0 };
  for (const each of backends) {
    const out = each.removed ? "removed" : { drain: "drained", disabled: "disabled" }[each.state] ?? "of weight 0";
    const word = standing(each);
    words[word === "out" ? out : word] += 1;
  }
  return Object.entries(words).filter(([, number]) => number).map(([word, number]) => `${number} ${word}`).join(", ");
}

export function heldText(held) {
  if (!held) return "";
  const why = { empty: "it lists none at all", shrink: "so many at once are not believed", denied: "the token may not see all" };
  const end = held.ends_in_s === null ? "they stay until it lists them again or somebody applies with --force"
    : `they stay until it lists them again, or for another ${span(held.ends_in_s)}`;
  return `Consul lists ${held.seen} and no longer ${held.count} that run here (${why[held.why] ?? held.why}): ${end}.`;
}

export function sourceText(source) {
  return heldText(source.held) || source.last_error || source.note || "";
}

const DAY_S = 86400;
const SOON_S = 7 * DAY_S;     // as core/certificates.py has it

function leftSeconds(certificate) {
  return (Date.parse(certificate.ends) - Date.now() - daemonClock.aheadMs) / 1000;
}

/** When a certificate ends: "ends in 29 d", "ended 3 h ago". */
export function endsText(certificate) {
  const left = leftSeconds(certificate);
  return left > 0 ? `ends in ${span(left)}` : `ended ${span(-left)} ago`;
}

export function certificateTone(certificate) {
  const left = leftSeconds(certificate);
  if (left < DAY_S) return "bad";
  return left < SOON_S || certificate.not_renewed ? "warn" : "good";
}

/** Whom a certificate is for: some names, and how many more. */
export function namesText(certificate) {
  const more = certificate.names.length > 3 ? ` and ${certificate.names.length - 3} more` : "";
  return certificate.names.slice(0, 3).join(", ") + more || "no name";
}

/** Everything that somebody should look at, the worst first: [{key, tone, word, text, view}]. */
export function problems(status) {
  const found = [];
  // What a line is about names it: its text has ages in it, which change.
  const add = (tone, word, about, text, view) => found.push({ tone, word, text, view, key: `${word}\n${view}\n${about}` });
  for (const [name, service] of Object.entries(status.services)) clientProblems(name, service.recent, add);
  if (status.contested) {
    const { times, for_s, next_in_s, said_by } = status.contested;
    add("bad", "contested", "", `Somebody else pushes to the same data planes, and each push cuts clients: ${said_by}. What was accepted here was pushed again ${times} times in ${span(for_s)}, and may be once more in ${span(next_in_s)}. End one of the two, or give both the same file.`, "dataplanes");
  }
  if (status.config_error) {
    const { path, message, details = [] } = status.config_error;
    const [first] = details;
    const what = first ? `${first.line ? `line ${first.line}: ` : ""}${first.path}: ${first.message}` : message;
    const more = details.length > 1 ? ` (and ${count(details.length - 1, "more error")})` : "";
    add("bad", "not taken", "", `${path} is not taken, and what ran before goes on. ${what.replaceAll(/:?\s*\n\s*/g, ": ")}${more}`, "sources");
  }
  if (status.drain?.error) {
    add("bad", "not ready", "", `This node is not ready, since it is not known whether somebody takes it out: ${status.drain.error}`, "dataplanes");
  } else if (status.drain) {
    const { phase, by, since } = status.drain;
    const what = phase === "lowered" ? "Routers and VRRP are asked to prefer other nodes" : "It is not ready, and new clients go elsewhere";
    add("idle", phase, "", `${by} takes this node out, ${phase} for ${ago(since)}. ${what}. To take clients again: lb-control node enable`, "dataplanes");
  }
  const unserved = new Map((status.unserved ?? []).map((each) => [each.service, each.why]));
  for (const [name, why] of unserved) add("bad", "not served", name, `service ${name} is not served: ${why}`, "sources");
  if (status.share && status.share.nodes === null) {
    const names = Object.keys(status.share.limits).sort().join(", ");
    add("warn", "not divided", "", `This node takes the limits of all nodes for its own, of ${names}: it has never known how many nodes there are`, "services");
  }
  planeProblems(status, add);
  for (const source of status.sources) {
    const told = (status.config_error && source.name.startsWith("file "))
      || (source.services?.length && source.services.every((name) => unserved.has(name)));
    if (source.state !== "ok" && !told) {
      add(SOURCE_TONE[source.state] ?? "warn", source.state, source.name, `${source.name}: ${sourceText(source) || source.state}`, "sources");
    }
  }
  for (const { troubled, cluster } of status.sources) {
    if (!troubled?.length) continue;
    const more = troubled.length > 3 ? ` and ${troubled.length - 3} more` : "";
    add("warn", "nodes", cluster, `Of the cluster ${cluster}, ${troubled.slice(0, 3).join(", ")}${more}.`, "nodes");
  }
  for (const [name, service] of Object.entries(status.services)) serviceProblems(name, service, add);
  if (status.overrides.length) {
    const first = status.overrides.slice(0, 3).map((each) => `${each.service}/${each.id} ${each.field === "weight" ? "weight " : ""}${each.value}`);
    const more = status.overrides.length - first.length;
    const hold = count(status.overrides.length, "operator override holds", "operator overrides hold");
    add("idle", "override", "", `${hold}: ${first.join(", ")}${more ? ` and ${more} more` : ""}`, "services");
  }
  const order = ["bad", "warn", "idle"];
  return found.sort((one, two) => order.indexOf(one.tone) - order.indexOf(two.tone));
}

const LIMITS = "The backends are too slow for so many clients: add backends, or raise limits.";
const TRY = "Try the backends by hand, from this machine.";
const ADVICE = {
  backend_reset: "The backends' own logs should say why.",
  backend_tls_failed: "The access log's detail says why the handshake fails; mend backend_tls or the backends' certificates.",
  connect_failed: TRY, connect_timeout: TRY,
  limit_connections: LIMITS, limit_per_backend: LIMITS, queue_full: LIMITS, queue_timeout: LIMITS,
  local_error: "This machine has run out of local ports, descriptors or memory; the event local_error names which.",
  no_backend: "No backend may be used; their health and state below say why.",
};

/** What clients met in the last minute that was neither their own doing nor wanted; the shares are core/harm.py's. */
function clientProblems(name, recent, add) {
  for (const [how, said, bad] of [["refused", 0, 0.01], ["cut", 0.01, 0.5]]) {
    const reasons = Object.entries(recent?.[how] ?? {}).sort((one, two) => two[1] - one[1]);
    const clients = reasons.reduce((sum, [, number]) => sum + number, 0);
    const of = Math.max(recent?.connections ?? 0, clients);
    if (!clients || clients < of * said) continue;
    const why = reasons.map(([reason, number]) => (reasons.length === 1 ? reason : `${reason} ${number}`)).join(", ");
    const [word, done] = how === "refused" ? ["not served", "were refused"] : ["cut off", "were cut off"];
    const text = `${name}: ${clients} of ${count(of, "client")} in the last minute ${done}: ${why}. ${ADVICE[reasons[0][0]] ?? ""}`;
    add(clients >= of * bad ? "bad" : "warn", word, name, text.trim(), "services");
  }
}

function planeProblems(status, add) {
  if (!status.dataplanes.length) add("bad", "no data plane", "", "No data plane is running on this node, so nothing is served.", "dataplanes");
  let explained = Boolean(status.contested);
  for (const plane of status.dataplanes) {
    if (plane.gone_since) {
      add("bad", "gone", plane.name, `The process of data plane ${plane.name} has ended, and was last alive ${ago(plane.gone_since)} ago. It left its socket. If it is not to come back under this name: rm ${plane.socket}`, "dataplanes");
    } else if (!plane.reachable) {
      const old = plane.generation === null ? "It has never answered." : `Its figures are ${span(plane.age_s)} old.`;
      add("bad", "unreachable", plane.name, `Data plane ${plane.name}: ${plane.error ?? "does not answer"}. ${old}`, "dataplanes");
    } else if (plane.error) add("bad", "refused", plane.name, `Data plane ${plane.name}: ${plane.error}`, "dataplanes");
    explained ||= !plane.reachable || Boolean(plane.error);
  }
  if (status.dataplanes.some((each) => each.reachable) && !Object.keys(status.services).length && !status.unserved?.length) {
    add("warn", "no service", "", "No service is configured, so nothing listens.", "services");
  }
  if (!status.converged && status.dataplanes.length && !explained) {
    add("warn", "not converged", "", `Not every worker runs generation ${status.generation} yet.`, "dataplanes");
  }
}

/** Names, causes and since when: the newest first, and a cause that all have in common once. */
function unhealthyText(backends) {
  const newest = backends.toSorted((one, two) => (two.health.since ?? "").localeCompare(one.health.since ?? ""));
  const alike = new Set(backends.map(causeText)).size === 1;
  const named = newest.slice(0, 3).map((each) => (alike || !causeText(each) ? each.id : `${each.id} (${causeText(each)})`));
  const more = newest.length > named.length ? ` and ${newest.length - named.length} more` : "";
  const cause = alike && causeText(newest[0]) ? ` (${causeText(newest[0])})` : "";
  const passed = ago(newest[0].health.since);
  return `${named.join(", ")}${more}${cause}${passed && `, ${newest.length > 1 ? "the last one " : ""}for ${passed}`}`;
}

function certificateProblems(name, service, add) {
  for (const each of service.certificates ?? []) {
    const what = `${name}: ${each.cert} (${namesText(each)})`;
    const about = `${name} ${each.place}`;
    const left = leftSeconds(each);
    if (left <= 0) add("bad", "certificate", about, `${what} ${endsText(each)}: whoever verifies it does not connect.`, "services");
    else if (left < SOON_S) add(left < DAY_S ? "bad" : "warn", "certificate", about, `${what} ${endsText(each)}, and nobody has renewed it.`, "services");
    if (each.not_renewed) add("warn", "not renewed", about, `${what}: what is in its files is not in use: ${each.not_renewed}`, "services");
    if (each.key_readable_by_all) add("warn", "key", about, `${what}: everybody on its machine may read its key; take that from others.`, "services");
  }
}

function serviceProblems(name, service, add) {
  certificateProblems(name, service, add);
  const usable = service.backends.filter(serves).length;
  if (service.panic) add("bad", "panic", name, `${name}: ${usable || "none"} of ${count(service.backends.length, "backend")} healthy, so health is ignored: ${serving(service).length} that can be reached serve. The checks may be wrong.`, "services");
  else if (service.backends.length && !usable) add("bad", "no backend", name, `${name}: no backend is usable, clients are refused.`, "services");
  if (!service.backends.length) add("warn", "empty", name, `${name} has no backends.`, "services");
  for (const state of ["down", "ejected"]) {
    const bad = service.backends.filter((each) => each.health.state === state && !each.removed);
    if (!bad.length) continue;
    add(HEALTH_TONE[state], state, name, `${name}: ${bad.length} of ${count(service.backends.length, "backend")}: ${unhealthyText(bad)}`, "services");
  }
  for (const each of service.listeners) {
    if (each.state !== "accepting") add("warn", each.state, `${name} ${each.address}`, `${name}: the listener ${each.address} is ${each.state}.`, "services");
  }
}
