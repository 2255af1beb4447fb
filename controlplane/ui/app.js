// The dashboard: asks the daemon for its status, follows its events, and shows both.
//
// Theory of operation:
//
// 1. One loop asks for the status, the next question a second after the last answer, later if answers are slow
//    (daemon.js). A second loop holds the event stream open (events.js); some of its events make the first one
//    ask at once.
// 2. What is shown is a function of the last answer (state.js). Nodes are made once for each key and then only
//    written to where a value differs (dom.js), so that focus, selection and layout stay. Sparklines off the
//    screen are not drawn.
// 3. Rates are differences between two answers (rates.js). Where the set of data planes changed or a counter fell,
//    there is no difference to take: the line has a gap.
// 4. Without an answer, everything stays as it was, greyed, under a banner that says since when.
// 5. Whatever comes from the API becomes text, never markup; the server's policy forbids the rest.
// 6. Modules import only downwards: app, then the views, then daemon, summary and changes, then meaning and rates,
//    then text, dom and state.

import { readHistory, showHistory, showPlanes, showSources } from "/cards.js";
import { showImpact, submitBackend, submitRollback, submitting } from "/changes.js";
import { forgetToken, giveToken, lookForEver, showAge, soon } from "/daemon.js";
import { $, setAttribute, setHidden, setText } from "/dom.js";
import { events, followForEver, showEvents } from "/events.js";
import { showNodes } from "/nodes.js";
import { showServices } from "/services.js";
import { act, looking } from "/state.js";
import { buildSummary, nodePill, nodeText, showNode, showProblems, showSummary } from "/summary.js";

const VIEWS = {
  services: showServices,
  events: () => events.paused || showEvents(),
  history: (status) => {
    showHistory(status);
    void readHistory(status);
  },
  sources: showSources,
  dataplanes: showPlanes,
  nodes: (status) => void showNodes(status),
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
  act.show();
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

function onKey(event) {
  const typing = event.target.closest("input, select, textarea, dialog");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && looking.status !== null) {
    event.preventDefault();
    choose("services");
    $("filter").focus();
  }
}

function begin() {
  Object.assign(act, { show, choose });
  $("node").append(nodePill, nodeText);
  buildSummary();
  for (const each of Object.keys(VIEWS)) $(`tab-${each}`).addEventListener("click", () => choose(each));
  document.querySelector("[role=tablist]").addEventListener("keydown", onTabKey);
  choose(location.hash.slice(1));
  window.addEventListener("hashchange", () => choose(location.hash.slice(1)));
  document.addEventListener("keydown", onKey);
  $("filter").addEventListener("input", () => act.show());
  $("show").addEventListener("change", () => act.show());
  $("event-filter").addEventListener("input", showEvents);
  $("event-pause").addEventListener("click", () => {
    events.paused = !events.paused;
    setAttribute($("event-pause"), "aria-pressed", String(events.paused));
    setText($("event-pause"), events.paused ? "Resume" : "Pause");
    showEvents();
  });
  $("banner-retry").addEventListener("click", () => ($("banner").dataset.level === "bad" ? soon() : location.reload()));
  $("gate-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const token = $("gate-token").value.trim();
    $("gate-token").value = "";
    setText($("gate-error"), "");
    giveToken(token);
  });
  $("session").addEventListener("click", forgetToken);
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
  showAge();
  setInterval(showAge, 1000);
  void lookForEver();
  void followForEver();
}

begin();
