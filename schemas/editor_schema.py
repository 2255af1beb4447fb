"""Writes the JSON Schema of lb.yaml for editors: short forms, patterns, defaults, and a text for every key."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter

from schemas.fields import Frozen
from schemas.variables import VARIABLE_PATTERN


def editor_schema(file: type[BaseModel], service: type[BaseModel]) -> dict[str, Any]:
    """Return a JSON Schema, draft 2020-12, of a whole document; all of a service is optional in `defaults`."""
    schema = file.model_json_schema(mode="validation")
    definitions: dict[str, Any] = schema.pop("$defs")
    for model in _models(Frozen):
        described = schema if model is file else definitions.get(model.__name__)
        if described is not None:
            _describe(described, model)
    # JSON Schema says of a key that fits no pattern only that nothing is known of its value.
    schema["properties"]["services"]["additionalProperties"] = False
    one = definitions[service.__name__]
    # None is what leaving them out means, nothing to write.
    for name in ("backends", "discover", "match", "tls", "backend_tls"):
        _drop_null(one["properties"][name])
    _drop_null(schema["properties"]["cluster"])
    optional = (("ActiveCheck", "tls"), ("Tls", "client_ca"), ("BackendTls", "cert"), ("BackendTls", "key"))
    for holder, key in optional:
        if holder in definitions:
            _drop_null(definitions[holder]["properties"][key])
    listen = one["properties"]["listen"]
    listener = listen.pop("items")
    del listen["type"]
    listen["anyOf"] = [listener, {"type": "array", "minItems": 1, "items": listener}]
    required = one.pop("required")
    definitions["Defaults"] = {**deepcopy(one), "description": "Anything that a service may say."}
    one["not"] = {"required": ["backends", "discover"]}
    schema["properties"]["defaults"] = {"$ref": "#/$defs/Defaults"}
    cluster = definitions.get("Cluster", {"properties": {}})["properties"]
    _take_variables(
        [definitions["Listener"], *(cluster[key] for key in ("node", "address") if key in cluster)]
    )
    _say_what_fits([schema, definitions])
    for definition in definitions.values():
        _choose_by_type(definition)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "lb.yaml",
        "description": "What the load balancer should be.",
        # What defaults give, a service need not say.
        "allOf": [
            *(_unless_default([key], {"required": [key]}) for key in required),
            _unless_default(
                ["backends", "discover"], {"anyOf": [{"required": ["backends"]}, {"required": ["discover"]}]}
            ),
        ],
        "$defs": definitions,
    }


def _take_variables(schema: Any) -> None:
    """Let a text have a node's variables in place of what its pattern asks for: which value fits, each node knows."""
    if isinstance(schema, list):
        for one in schema:
            _take_variables(one)
    elif isinstance(schema, dict):
        if "pattern" in schema:
            schema["pattern"] = f"{schema['pattern']}|{VARIABLE_PATTERN}"
        for inner in schema.values():
            _take_variables(inner)


def _choose_by_type(definition: dict[str, Any]) -> None:
    """Have a value that is a mapping or its short form be judged as what it is.

    Of two variants that do not fit, an editor has to guess which one was meant, and complains of the wrong one.
    """
    variants = {one.get("type"): one for one in definition.get("anyOf", ())}
    if variants.keys() == {"string", "object"}:
        del definition["anyOf"]
        definition |= {
            "if": {"type": "object"},
            "then": variants["object"],
            "else": variants["string"],
        }


def _say_what_fits(schema: Any, examples: Sequence[str] = ()) -> None:
    """Put words beside every pattern that has examples: yaml-language-server shows them instead of the pattern."""
    if isinstance(schema, list):
        for one in schema:
            _say_what_fits(one, examples)
    elif isinstance(schema, dict):
        found = schema.get("examples")
        examples = found if isinstance(found, list) else examples
        if "pattern" in schema and examples:
            shown = ", ".join(f'"{each}"' for each in examples)
            schema["patternErrorMessage"] = f"Must look like {shown}."
        for name, inner in schema.items():
            if name != "examples":
                # What is below a key of its own has examples of its own.
                _say_what_fits(inner, examples if name in {"anyOf", "items"} else ())


def _unless_default(keys: list[str], rule: dict[str, Any]) -> dict[str, Any]:
    given = {
        "properties": {"defaults": {"anyOf": [{"required": [key]} for key in keys]}},
        "required": ["defaults"],
    }
    return {"if": given, "else": {"properties": {"services": {"additionalProperties": rule}}}}


def _drop_null(schema: dict[str, Any]) -> None:
    rest = [one for one in schema["anyOf"] if one != {"type": "null"}]
    if len(rest) == 1:
        del schema["anyOf"]
        schema.update(rest[0])


def _models(below: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in below.__subclasses__():
        yield model
        yield from _models(model)


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Write the docstrings and defaults of a model's fields into its schema."""
    texts: dict[str, str] = {}
    for ancestor in reversed(model.__mro__):
        if issubclass(ancestor, BaseModel) and ancestor is not BaseModel:
            texts.update(_field_docstrings(ancestor))
    fields = model.model_fields
    plain = {name for name, field in fields.items() if not field.is_required() and not field.default_factory}
    blank = model.model_construct(**dict.fromkeys(fields.keys() - plain))
    # As documents write it: "30s", not 30.0.
    defaults = blank.model_dump(mode="json", include=plain)
    for name in plain - defaults.keys():  # what snapshots have only where it is said (`exclude_if`)
        field = fields[name]
        kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        defaults[name] = TypeAdapter(kind).dump_python(field.default, mode="json")
    whole = next((one for one in schema.get("anyOf", ()) if one.get("type") == "object"), schema)
    for name, field in fields.items():
        described = whole["properties"].get(field.alias or name)
        if described is None:
            continue
        described.pop("title", None)
        described["description"] = texts[name]
        described.pop("default", None)
        if defaults.get(name) is not None and "$ref" not in described:  # what that refers to has its own
            described["default"] = defaults[name]


def _field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 - it is the source of a class
    found: dict[str, str] = {}
    for statement, text in zip(definition.body, definition.body[1:], strict=False):
        if not isinstance(text, ast.Expr) or not isinstance(text.value, ast.Constant):
            continue
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found[statement.target.id] = inspect.cleandoc(str(text.value.value))
    return found
