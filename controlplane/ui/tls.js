// What a service has to do with TLS: whom it takes by name, its certificates and their ends, handshakes, TLS to backends.

import { keyed, make, pillOf, setAttribute, setHidden, setPill, setText } from "/dom.js";
import { certificateTone, endsText, namesText } from "/meaning.js";
import { clock, count, figure, share } from "/text.js";

/** Whom a service takes of a listener that it shares: "www.example.com, *.example.org · h2 · from 10.0.0.0/8". */
export function matchText(match) {
  if (!match) return "";
  return [match.sni.join(", "), match.alpn.join(", "), match.source.length ? `from ${match.source.join(", ")}` : ""].filter(Boolean).join(" · ");
}

function sum(counts) {
  return Object.values(counts).reduce((all, each) => all + each, 0);
}

/** How handshakes went since the process began: "1240 handshakes, 83% resumed, TLSv1.3 98%; 3 failed: expired 2, not_tls 1". */
export function handshakesText(tls) {
  if (!tls) return "";
  const done = sum(tls.handshakes);
  const failed = sum(tls.failed);
  const versions = Object.entries(tls.handshakes).sort().reverse().map(([version, number]) => `${version} ${share(number, done)}`);
  const went = done ? `${figure(done)} ${done === 1 ? "handshake" : "handshakes"}, ${share(tls.resumed, done)} resumed, ${versions.join(", ")}` : "";
  const causes = Object.entries(tls.failed).sort((one, two) => two[1] - one[1]).map(([cause, number]) => `${cause} ${figure(number)}`);
  const lost = failed ? `${count(failed, "handshake")} failed: ${causes.join(", ")}` : "";
  return [went, lost].filter(Boolean).join("; ");
}

/** What TLS to the backends is like: "verified by the authorities of the system, as db.example". */
export function backendsText(service) {
  const begins = service.backend_tls;
  if (!begins) return "";
  const by = begins.ca === "system" ? "the system's authorities" : begins.ca;
  const how = begins.verify ? `verified by ${by}${begins.server_name ? `, as ${begins.server_name}` : ""}` : "not verified: anybody could answer";
  const all = { handshakes: {}, failed: {}, resumed: 0 };
  for (const { totals } of service.backends) {
    if (!totals?.tls) continue;
    all.resumed += totals.tls.resumed;
    for (const part of ["handshakes", "failed"]) {
      for (const [word, number] of Object.entries(totals.tls[part])) all[part][word] = (all[part][word] ?? 0) + number;
    }
  }
  return [how, handshakesText(all)].filter(Boolean).join("; ");
}

function certificateView() {
  const ends = pillOf(), names = make("span"), what = make("span", "muted"), trouble = make("span", "tls-trouble");
  return {
    node: make("li", "", ends, " ", names, " ", what, trouble),
    update(each) {
      setPill(ends, endsText(each), certificateTone(each));
      setAttribute(ends, "title", `${clock(each.begins)} to ${clock(each.ends)}`);
      setText(names, namesText(each));
      const own = each.place === "backend_tls" ? "shown to backends" : "";
      setText(what, [each.key_type, own, each.cert].filter(Boolean).join(" · "));
      setText(trouble, each.not_renewed ? `not renewed: ${each.not_renewed}` : "");
      setHidden(trouble, !each.not_renewed);
    },
  };
}

/** The lines below a service's head; hidden where there is no TLS. */
export function tlsView() {
  const list = make("ul", "tls-certificates");
  const lines = new Map(["Takes", "Certificates", "TLS of clients", "TLS to backends"].map((title) => {
    const value = make("dd", "", ...(title === "Certificates" ? [list] : []));
    return [title, { title: make("dt", "", title), value }];
  }));
  const node = make("dl", "tls", ...[...lines.values()].flatMap((each) => [each.title, each.value]));
  const show = (title, shown) => {
    setHidden(lines.get(title).title, !shown);
    setHidden(lines.get(title).value, !shown);
  };
  const tell = (title, text) => {
    setText(lines.get(title).value, text);
    show(title, text !== "");
  };
  return {
    node,
    update(service) {
      const certificates = service.certificates ?? [];
      setHidden(node, !service.match && !certificates.length && !service.backend_tls);
      tell("Takes", matchText(service.match));
      show("Certificates", certificates.length > 0);
      keyed(list, certificates, (each) => each.place, certificateView);
      tell("TLS of clients", handshakesText(service.totals?.tls));
      tell("TLS to backends", backendsText(service));
    },
  };
}
