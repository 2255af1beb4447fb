"""The part of JSON Schema 2020-12 that the schema of lb.yaml uses, and nothing else: another keyword is an error.

No validator is among the project's dependencies, and editors are the only ones that validate with the schema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "null": lambda value: value is None,
}
_ANNOTATIONS: Final = {
    "$schema",
    "$defs",
    "title",
    "description",
    "default",
    "examples",
    "patternErrorMessage",
}


class Validator:
    """Decides whether a value fits a schema.

    Args:
        root: The whole schema; references are looked up in its `$defs`.
    """

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def fits(self, value: Any, schema: Mapping[str, Any] | None = None) -> bool:
        """Decide; without a schema, by the whole.

        Raises:
            AttributeError: The schema has a keyword that is not known here.
        """
        schema = self._root if schema is None else schema
        rules = {key: rule for key, rule in schema.items() if key not in _ANNOTATIONS}
        if "if" in rules:
            branch = "then" if self.fits(value, rules.pop("if")) else "else"
            then = {"then": rules.pop("then", None), "else": rules.pop("else", None)}[branch]
            if then is not None and not self.fits(value, then):
                return False
        return all(
            getattr(self, "_" + key.replace("$", ""))(rule, value, schema) for key, rule in rules.items()
        )

    def _ref(self, rule: str, value: Any, _: object) -> bool:
        return self.fits(value, self._root["$defs"][rule.removeprefix("#/$defs/")])

    def _type(self, rule: str, value: Any, _: object) -> bool:
        return _TYPES[rule](value)

    def _const(self, rule: object, value: Any, _: object) -> bool:
        return value == rule and type(value) is type(rule)

    def _enum(self, rule: Sequence[object], value: Any, _: object) -> bool:
        return value in rule

    def _pattern(self, rule: str, value: Any, _: object) -> bool:
        return not isinstance(value, str) or re.search(rule, value) is not None

    def _minimum(self, rule: float, value: Any, _: object) -> bool:
        return not _TYPES["number"](value) or value >= rule

    def _maximum(self, rule: float, value: Any, _: object) -> bool:
        return not _TYPES["number"](value) or value <= rule

    def _minLength(self, rule: int, value: Any, _: object) -> bool:  # noqa: N802 - JSON Schema's spelling
        return not isinstance(value, str) or len(value) >= rule

    def _maxLength(self, rule: int, value: Any, _: object) -> bool:  # noqa: N802 - JSON Schema's spelling
        return not isinstance(value, str) or len(value) <= rule

    def _minItems(self, rule: int, value: Any, _: object) -> bool:  # noqa: N802 - JSON Schema's spelling
        return not isinstance(value, list) or len(value) >= rule

    def _items(self, rule: Mapping[str, Any], value: Any, _: object) -> bool:
        return not isinstance(value, list) or all(self.fits(one, rule) for one in value)

    def _required(self, rule: Sequence[str], value: Any, _: object) -> bool:
        return not isinstance(value, dict) or all(key in value for key in rule)

    def _properties(self, rule: Mapping[str, Any], value: Any, _: object) -> bool:
        return not isinstance(value, dict) or all(
            self.fits(value[key], sub) for key, sub in rule.items() if key in value
        )

    def _patternProperties(self, rule: Mapping[str, Any], value: Any, _: object) -> bool:  # noqa: N802 - JSON Schema's spelling
        return not isinstance(value, dict) or all(
            self.fits(one, sub)
            for pattern, sub in rule.items()
            for key, one in value.items()
            if re.search(pattern, key)
        )

    def _additionalProperties(self, rule: object, value: Any, schema: Mapping[str, Any]) -> bool:  # noqa: N802 - JSON Schema's spelling
        if not isinstance(value, dict):
            return True
        known = schema.get("properties", {})
        patterns = schema.get("patternProperties", {})
        more = [
            one
            for key, one in value.items()
            if key not in known and not any(re.search(p, key) for p in patterns)
        ]
        return not more if not isinstance(rule, dict) else all(self.fits(one, rule) for one in more)

    def _anyOf(self, rule: Sequence[Mapping[str, Any]], value: Any, _: object) -> bool:  # noqa: N802 - JSON Schema's spelling
        return any(self.fits(value, one) for one in rule)

    def _oneOf(self, rule: Sequence[Mapping[str, Any]], value: Any, _: object) -> bool:  # noqa: N802 - JSON Schema's spelling
        return sum(self.fits(value, one) for one in rule) == 1

    def _allOf(self, rule: Sequence[Mapping[str, Any]], value: Any, _: object) -> bool:  # noqa: N802 - JSON Schema's spelling
        return all(self.fits(value, one) for one in rule)

    def _not(self, rule: Mapping[str, Any], value: Any, _: object) -> bool:
        return not self.fits(value, rule)
