"""The page of the reference about lb.yaml, from the schema that editors get."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from schemas.desired import json_schema


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield f"| {' | '.join(titles)} |"
    yield f"|{'---|' * len(titles)}"
    yield from (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
    yield ""


def config() -> Iterator[str]:
    """Yield the lines of the page about lb.yaml."""
    schema = json_schema()
    definitions = schema["$defs"]
    yield from (
        "# lb.yaml",
        "",
        "Every key, with its default. A key without a default may be left out, unless it is marked *required*.",
        "Unknown keys, duplicate keys, aliases, tags and files over 1 MiB are errors. JSON is accepted as well.",
        "",
        "- A duration is `250ms`, `5s`, `3m`, `1h`, `1m30s`, or `0`.",
        "- A share is `10%` or `12.5%`.",
        "- An address to listen on is `127.0.0.1:4000`, `:4000` and `*:4000` (all IPv4), `[::]:4000` (all IPv6, and no IPv4)",
        "  or `unix:/run/x.sock`. A backend's may have a host name. With options a listener is a mapping:",
        '  `{unix: /run/x.sock, mode: "0660", owner: www, group: www}`, `{address: "[::]:4000", dual_stack: true, freebind: true}`.',
        "- In an address to listen on can stand variables of the node, as `${NODE_IP}:443`; so in `cluster.node` and",
        "  `cluster.address`, and nowhere else: [one file for many nodes](../topics/control-plane.md#one-file-for-many-nodes).",
        "- The name of a service has 1 to 63 letters, digits, `.`, `_` and `-`.",
        "",
        "An [example](../../deploy/examples/lb.yaml), and what editors check with: `lb-control schema`.",
        "",
        "## The file",
        "",
    )
    yield from _keys(schema, definitions, prefix="")
    yield from ("## A service", "", "`services.NAME`, and all of it in `defaults` as well.", "")
    yield from _keys(definitions["DesiredService"], definitions, prefix="")
    yield from _sections(definitions["DesiredService"], definitions, prefix="")
    for name, title in (("consul", "Consul"), ("guard", "Guard"), ("cluster", "Cluster")):
        yield from (f"## `{name}`", "", str(schema["properties"][name]["description"]), "")
        yield from _keys(definitions[title], definitions, prefix=f"{name}.")


def _sections(model: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, field in model["properties"].items():
        inner = _model_of(field, definitions)
        if inner is None:
            continue
        place = f"{prefix}{name}"
        yield from (f"### `{place}`", "", str(inner.get("description") or field.get("description", "")), "")
        yield from _keys(inner, definitions, prefix=f"{place}.")
        yield from _sections(inner, definitions, prefix=f"{place}.")


def _keys(model: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str) -> Iterator[str]:
    required = set(model.get("required", ()))
    if prefix == "" and "listen" in model["properties"]:
        required.add("listen")
    rows = []
    for name, field in model["properties"].items():
        default = "" if "default" not in field else f"`{_shown(field['default'])}`"
        if name in required:
            default = "*required*"
        inner = _model_of(field, definitions)
        about = str(field.get("description") or (inner or {}).get("description") or _ABOUT.get(name, ""))
        rows.append((f"`{prefix}{name}`", _kind(field, definitions), default, about))
    yield from table(("key", "what", "default", "meaning"), rows)


_ABOUT: Final = {"defaults": "Anything that a service may say; a service overrides it key by key."}


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return "true" if default else "false"
    if isinstance(default, list):
        return "[" + ", ".join(map(str, default)) + "]"
    return '""' if default == "" else str(default)


def _variants(field: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = field.get("anyOf", [field])
    return [each for each in found if each.get("type") != "null" and each.get("const") != 0]


def _model_of(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the model that a field's value is, or whose list it is."""
    for variant in _variants(field):
        target = variant.get("items", variant).get("$ref", "").rpartition("/")[2]
        if target and target not in {"DesiredService", "Defaults"}:
            found = definitions[target]
            return next(
                (each for each in found.get("anyOf", [found.get("then", found)]) if "properties" in each),
                None,
            )
    return None


def _kind(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    return " or ".join(dict.fromkeys(_kind_of(each, definitions) for each in _variants(field)))


def _kind_of(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:  # noqa: PLR0911 - one answer for each kind of value
    if field.get("$ref", "").endswith("/Listener"):
        return "address or mapping"
    if "$ref" in field:
        return "mapping" if field["$ref"].endswith("Defaults") else "section"
    if "enum" in field:
        return ", ".join(dict.fromkeys(f"`{each}`" for each in field["enum"]))
    if "const" in field:
        return f"`{field['const']}`"
    kind = str(field.get("type"))
    if kind == "array":
        return f"list of {_plural(_kind(field['items'], definitions))}"
    if kind in {"integer", "number"}:
        return f"{field['minimum']} to {field['maximum']}"
    pattern = str(field.get("pattern", ""))
    for mark, word in (
        ("(?=.*[1-9])", "duration above 0"),
        ("ms|s|m|h", "duration"),
        (")%$", "share"),
        ("6553", "address"),
        ("/[0-9]{1,2}", "network"),
    ):
        if mark in pattern:
            return word
    return {"string": "text", "boolean": "true or false", "object": "mapping"}[kind]


def _plural(kind: str) -> str:
    plurals = {
        "address": "addresses",
        "address or mapping": "them",
        "section": "sections",
        "network": "networks",
        "text": "texts",
    }
    return plurals.get(kind, kind)
