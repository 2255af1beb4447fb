"""What the reference says that no line of code does: one sentence for each call, event, variable and skip reason."""

from __future__ import annotations

from typing import Final, NamedTuple


class Call(NamedTuple):
    """One call of an API."""

    takes: str
    """Body, query and headers."""
    does: str


_PATCH: Final = ("PATCH", "/v1/services/{service}/backends/{backend}")
_PATCH_ALL: Final = ("PATCH", "/v1/services/{service}/backends")

CALLS: Final[dict[tuple[str, str], Call]] = {
    ("GET", "/v1/info"): Call("", "Says who answers and what it runs: [Info](#info)."),
    ("PUT", "/v1/snapshot"): Call(
        "`{generation, hash?, services}`; `?dry_run=true`; `If-Match: HASH`",
        "Runs a snapshot, and answers [Applied](#applied) once every worker runs it. The same again changes nothing. "
        "With `dry_run` it changes nothing and answers [Planned](#planned), or the same refusals. After any answer "
        "but 200 nothing has changed.",
    ),
    ("GET", "/v1/snapshot"): Call("", "What runs, every default resolved, without operators' overrides."),
    ("PUT", "/v1/health"): Call(
        "`{verdicts: {SERVICE: {BACKEND: {state, cause}}}}`",
        "Verdicts of somebody else's checks (`up`, `down`, `unknown`), which hold at once and until a check of the data "
        "plane's own says otherwise. 200 `{unknown: [SERVICE/BACKEND]}`: those that do not exist here.",
    ),
    ("GET", "/v1/status"): Call(
        "", "Everything about services, listeners, backends and workers: [Status](#status)."
    ),
    _PATCH: Call(
        "[BackendPatch](#backendpatch)", "An operator's override, until a snapshot changes that field."
    ),
    _PATCH_ALL: Call(
        "[BackendsPatch](#backendspatch)",
        "The same for many backends in one change, made in all workers or, if one entry is wrong, not at all. 200 `{service, "
        "backends: [{id, state, weight}]}`; 404 `no_such_backend` names the place of each that does not exist.",
    ),
    ("PUT", "/v1/drain"): Call(
        "[DrainOrder](#drainorder)",
        "Gives every connection in place the drain timeout of its service, or takes that back; overrides stay as they are. New "
        "clients are served as ever: said again, it concerns them too. A change of what runs takes it back. 200 `{draining}`.",
    ),
    ("GET", "/v1/explain"): Call(
        "`?service=NAME&client=IP`",
        "Which backends a client would get, and why not others: [Explanation](#explanation).",
    ),
    ("POST", "/v1/restart"): Call(
        "", "Replaces every worker, one at a time: `{workers, pids}`. A single process refuses."
    ),
    ("PUT", "/v1/workers"): Call(
        "`{count}`",
        "Has so many workers from now on; growing and shrinking lose nobody. A single process refuses.",
    ),
    ("GET", "/v1/events"): Call(
        "`Last-Event-ID: ID`",
        "Events as they happen; with the header first those of the last 256 that came after it; with the id of another "
        "process, or 0, all of them.",
    ),
    ("GET", "/metrics"): Call("", "[Metrics](metrics.md), all workers in one."),
    ("GET", "/livez"): Call("", "The process answers."),
    ("GET", "/readyz"): Call("", "200 if this node may get traffic, else 503 `not_ready` with the reason."),
}

_REPORT: Final = "`?timeout=30s&max_remap=10%&force=true`"

CONTROL_CALLS: Final[dict[tuple[str, str], Call]] = {
    ("GET", "/v1/status"): Call("", "What `lb-control status --json` prints."),
    ("GET", "/v1/snapshot"): Call("", "What was accepted last."),
    ("GET", "/v1/history"): Call(
        "",
        "`{history: [...], warnings: [...]}`: every generation that is kept, the oldest first, and what of it cannot be read.",
    ),
    ("GET", "/v1/events"): Call(
        "`?remembered=true`",
        "[Events](events.md#of-the-daemon) from now on, of all data planes; with `remembered` the latest ones first.",
    ),
    ("GET", "/v1/nodes"): Call(
        "",
        "What `lb-control nodes --json` prints: the [nodes](#nodes) of the cluster; 404 `unknown` where lb.yaml has no "
        "`cluster`.",
    ),
    ("POST", "/v1/plan"): Call("`lb.yaml` as JSON", "What `lb-control plan --json` prints."),
    ("POST", "/v1/apply"): Call(f"`lb.yaml` as JSON; {_REPORT}", "What `lb-control apply --json` prints."),
    ("POST", "/v1/rollback"): Call(
        f"`{{generation?}}`; {_REPORT}", "Returns to that generation's content, or to the previous content."
    ),
    _PATCH: Call("[BackendPatch](#backendpatch)", "An operator's override, kept over restarts."),
    ("GET", "/metrics"): Call("", "The daemon's own [metrics](metrics.md#of-the-daemon)."),
    ("GET", "/livez"): Call("", "The process answers."),
}

VARIABLES: Final[dict[str, str]] = {
    "LISTEN": "an address; `:4000` if unset",
    "BACKENDS": "addresses, separated by commas",
    "LB_MODE": "`rr`, `sticky`, `leastconn`, `p2c` or `random`",
    "POOL_MODE": "`preconnect`, `reuse` or `off`",
    "POOL_SIZE": "a whole number",
    "PROXY_V1": "`1`, `true`, `yes`, `on` send a PROXY v1 header; `0`, `false`, `no`, `off` do not",
    "DIAL_TIMEOUT": "a duration",
    "IDLE_TIMEOUT": "a duration: how long an unused pooled connection is kept",
    "IO_TIMEOUT": "a duration: how long a client's connection may be silent",
    "HEALTH_EVERY": "a duration: from one check to the next; `0` for no checks",
}

SKIPS: Final[dict[str, str]] = {
    "drain": "Its operator state is `drain`.",
    "disabled": "Its operator state is `disabled`.",
    "weight_zero": "Its weight is 0.",
    "down": "Its checks say so, and panic does not hold.",
    "ejected": "Passive health has ejected it, and panic does not hold.",
    "unreachable": "Panic holds, and no connection can be made to it.",
    "unresolved": "Its host name has no address yet.",
    "loop": "It is a listener of the balancer's own that leads back to the service.",
    "limit_per_backend": "It has `limits.per_backend` connections.",
}

EVENTS: Final[dict[str, str]] = {
    "api_not_served": "A process that has taken over serves clients, but cannot have the API's socket yet, and tries again each second; or one that drains cannot serve it any more.",
    "access_log_not_reopened": "SIGUSR1 came, and the access log's file cannot be opened: the old one is written on.",
    "access_log_reopened": "SIGUSR1 came: lines go to a new file of the access log's name from now on.",
    "applied": "Another snapshot runs.",
    "apply_refused": "`--config` was read again, and its content cannot be run.",
    "authorities_not_renewed": "A file of authorities (`tls.client_ca`, `backend_tls.ca`) was changed, and cannot be used: those before are in use.",
    "authorities_renewed": "A file of authorities was changed, and counts from the next handshake on.",
    "backend_certificate_ends": "Checks over TLS have seen that a backend's certificate is in the last third of its time, or in its last 14 days; told once a day.",
    "backend_down": "Active checks found it down.",
    "backend_ejected": "Clients' connections failed in a row; no new ones for a while.",
    "backend_reachable": "It is still down, but a connection can be made again: in panic it serves.",
    "backend_reinstated": "An ejection is over.",
    "backend_unknown": "Nobody checks it any more.",
    "backend_unreachable": "It was down, and now not even a connection can be made.",
    "backend_up": "Active checks found it up.",
    "certificate_ended": "A service was given a certificate that has ended already: clients that verify it do not come in.",
    "certificate_not_renewed": "Files of a certificate or its key were changed, and cannot be used: the pair before is in use, until `ends`.",
    "certificate_renewed": "A certificate was renewed, and is shown from the next handshake on; it holds until `ends`.",
    "connections_moved": "Connections are counted at another backend now: it has the address that they lead to, under another id.",
    "credentials_expired": "The API's certificate has expired; seen at the start, and when the file changes.",
    "credentials_not_renewed": "A token or certificate of the API's was changed, and cannot be used: the one before is in force.",
    "credentials_renewed": "A token or certificate of the API's was changed, and counts from now on.",
    "backend_loop": "A backend is a listener of the balancer's own that leads back to its service; nobody connects to it.",
    "draining": "The process has given its name away, and serves its API here until its last connection has ended.",
    "drain": "An operator, or a snapshot, drains or disables a backend.",
    "dropped": "This follower read too slowly and missed so many events.",
    "ejection_refused": "A backend would have been ejected, but too many are already, or it is the last one and has only reset.",
    "handed_over": "Another process has taken over; this one drains and ends.",
    "inherited_unused": "A listening socket that was inherited is in no service; it was closed.",
    "key_readable_by_all": "Everybody on this machine may read the file of a certificate's key: take that from others (`chmod o= FILE`).",
    "log_lines_lost": "Lines of the log or of the access log could not be written, or whoever reads it is too slow; told once.",
    "log_written_again": "They are written again for some seconds; `lines` is how many were lost meanwhile.",
    "local_error": "This machine lacks descriptors, ports or memory; at most one a second.",
    "no_usable_backend": "Clients of the service are closed at once, with the reason `no_backend`.",
    "orphan_gives_nothing": "A worker whose supervisor had died did not hand over its sockets.",
    "orphaned": "A worker's supervisor has died; it serves on, for so many seconds or until it is taken over.",
    "override": "An operator has said something about a backend, and that holds from now on.",
    "overrides": "One call has said something about many backends: of so many something is overridden from now on (`begun`), of so many something no longer (`ended`).",
    "override_ended": "An operator has taken an override back, or a snapshot has overruled it: the backend has the configured values told here.",
    "panic": "Too few backends are usable: health is ignored, and all serve to which a connection can be made.",
    "panic_over": "Health counts again.",
    "reread": "SIGHUP changed nothing, and why.",
    "resized": "There are more workers, or fewer.",
    "resolved": "A backend's host name has another address.",
    "restart": "The workers are being replaced.",
    "restart_failed": "A new worker did not come up; the others serve on.",
    "restart_refused": "A restart was asked for while a start or a restart is under way.",
    "restarted": "All workers are new.",
    "saved_snapshot_unusable": "What ran last cannot be run; the process waits for a snapshot.",
    "service_drained": "The last connection of a removed service has gone.",
    "snapshot_not_saved": "It runs, but a restart would find the one before; it is tried again until it is saved.",
    "snapshot_saved": "What could not be saved is: a restart would find it.",
    "spans_lost": "The collector did not take these spans; told at most once a minute.",
    "started": "The process is ready.",
    "stopped": "The process ends.",
    "stopping": "SIGTERM or SIGINT: nothing more is accepted; connections have until `drain.timeout`.",
    "stopping_now": "A second signal: what is left is cut.",
    "takeover_begins": "Another process asks for the listening sockets.",
    "takeover_not_offered": "Nothing can be served where `--takeover` asks for the sockets; it is tried again and again.",
    "takeover_failed": "The sockets were not taken: whoever had them goes on, and the other process ends.",
    "unhandled": "A bug of ours, with its traceback. Please report it.",
    "unresolved": "A backend's host name has no address; it gets no clients.",
    "usable_again": "Clients of the service get backends again.",
    "worker_died": "A worker ended by itself; its connections are lost, its queued clients are not.",
    "worker_drained": "A worker that was replaced has no connection left.",
    "worker_failed": "A worker did not come up; it is tried again later, or its predecessor stays.",
    "worker_ready": "A worker accepts.",
    "worker_terminated": "SIGTERM to a worker: it is replaced, then it drains.",
}

CONTROL_EVENTS: Final[dict[str, str]] = {
    "canary": (
        "A canary runs on this node (`state` is `running`), until when at the latest; or how it ended: `promoted`, `taken_back`, "
        "`expired`, `replaced`, and why."
    ),
    "dataplanes": "A data plane came, went, or runs something else.",
    "generation": "A change was accepted, by whom, and its hash.",
    "node": "A node of the cluster came, went, fell behind, or disagrees: `cause` says how it is now.",
}
