from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from schemas.desired import json_schema, load_desired
from schemas.errors import InvalidDocument
from tests.support.documents import parse_document
from tests.support.json_schema import Validator

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"


@pytest.fixture(scope="module")
def validator():
    """Return one that knows our schema."""
    return Validator(json_schema())


def test_the_example_has_the_current_schema_beside_it():
    """Editors take the schema from the file that the example's first line names."""
    example = (EXAMPLES / "lb.yaml").read_text()
    assert example.startswith("# yaml-language-server: $schema=lb.schema.json\n")
    assert json.loads((EXAMPLES / "lb.schema.json").read_text()) == json_schema()


def test_the_example_is_what_a_first_run_needs(validator):
    """Service web listens on 4000 and balances the two test backends."""
    raw = (EXAMPLES / "lb.yaml").read_bytes()
    service = load_desired(raw).services["web"]
    assert service.listen == ("127.0.0.1:4000",)
    assert service.backends is not None
    assert [(one.id, one.address) for one in service.backends] == [
        ("web-1", "127.0.0.1:5001"),
        ("web-2", "127.0.0.1:5002"),
    ]
    assert validator.fits(parse_document(raw).value)


def _freed(text):
    """Take the # away from every hint that is no example, nor below one."""
    example = None
    for line in text.splitlines():
        hint = re.fullmatch(r"( *)# ( *)(\w+:.*)", line)
        if hint is None:
            example = None
            yield line
            continue
        indent = len(hint[1] + hint[2])
        if example is not None and indent > example:
            continue
        example = indent if "example" in hint[3] else None
        if example is None:
            yield " " * indent + hint[3]


def test_the_hints_of_the_example_are_the_defaults():
    """Whoever takes a # away changes nothing before changing the value behind it."""
    text = (EXAMPLES / "lb.yaml").read_text()
    freed = "\n".join(_freed(text))
    added = parse_document(freed.encode()).value
    assert {"pool", "health", "limits", "drain", "seed"} <= added["services"]["web"].keys()
    assert {"consul", "guard"} <= added.keys()
    assert load_desired(freed.encode()) == load_desired(text.encode())


GOOD = [
    {"services": {}},
    {"services": {"a": {"listen": ":1", "backends": []}}},
    {
        "services": {
            "a": {"listen": ["[::]:1", "*:2"], "backends": ["a:1", {"address": "unix:/x", "weight": 0}]}
        }
    },
    {
        "services": {
            "a": {"listen": ":1", "discover": {"consul": {"service": "x", "datacenter": "dc1", "port": 5}}}
        }
    },
    {"services": {"a": {"backends": []}}, "defaults": {"listen": ":1"}},
    {"services": {"a": {"listen": ":1"}}, "defaults": {"backends": ["a:1"], "slow_start": "1m30s"}},
    {"services": {"a": {"listen": ":1", "backends": []}}, "defaults": {"balance_workers": True}},
    {"services": {"a": {"listen": ":1", "backends": [], "slow_start": 0, "health": {"panic": "12.5%"}}}},
    {"services": {}, "defaults": {"health": {"active": {"interval": "0m1s", "timeout": "0.5s"}}}},
    {"services": {}, "consul": {"register": True, "address": "https://a"}, "guard": {"hold": "1h"}},
    {
        "services": {
            "a": {"listen": ":1", "backends": [], "access": {"allow": ["10.0.0.0/8", "::1", "fd00::/8"]}}
        }
    },
    {
        "services": {
            "a": {
                "listen": ":1",
                "backends": [],
                "proxy_protocol": {"send": "off"},
                "limits": {"client_rate": 0.5},
            }
        }
    },
]
BAD = [
    {},
    {"services": []},
    {"services": {"a b": {"listen": ":1", "backends": []}}},
    {"services": {"a": {"backends": []}}},
    {"services": {"a": {"listen": ":1"}}},
    {"services": {"a": {"listen": ":1", "backends": [], "discover": {"consul": {"service": "x"}}}}},
    {"services": {"a": {"listen": 4000, "backends": []}}},
    {"services": {"a": {"listen": [], "backends": []}}},
    {"services": {"a": {"listen": "127.0.0.256:1", "backends": []}}},
    {"services": {"a": {"listen": ":65536", "backends": []}}},
    {"services": {"a": {"listen": ":1", "backends": ["a"]}}},
    {"services": {"a": {"listen": ":1", "backends": [{"address": "a:1", "weight": 257}]}}},
    {"services": {"a": {"listen": ":1", "backends": [{"address": "a:1", "wieght": 1}]}}},
    {"services": {"a": {"listen": ":1", "backends": [], "mode": "x"}}},
    {"services": {"a": {"listen": ":1", "backends": [], "slow_start": "5"}}},
    {"services": {"a": {"listen": ":1", "backends": [], "balance_workers": "maybe"}}},
    {"services": {"a": {"listen": ":1", "backends": [], "slow_start": 5}}},
    {"services": {"a": {"listen": ":1", "backends": [], "health": {"panic": "101%"}}}},
    {"services": {"a": {"listen": ":1", "backends": [], "health": {"active": {"http": {"status": [99]}}}}}},
    {"services": {"a": {"listen": ":1", "backends": [], "health": {"active": {"http": {"status": []}}}}}},
    {"services": {}, "defaults": {"health": {"active": {"interval": 0}}}},
    {"services": {}, "defaults": {"health": {"active": {"interval": "0"}}}},
    {"services": {}, "defaults": {"health": {"active": {"timeout": "0m0.0s"}}}},
    {"services": {}, "defaults": {"health": {"passive": {"ejection": "0ms"}}}},
    {"services": {}, "defaults": {"mod": "rr"}},
    {"services": {}, "defaults": {"timeouts": {"connect": 1}}},
    {"services": {}, "guard": {"max_shrink": 0.5}},
    {"services": {}, "srvices": {}},
]


@pytest.mark.parametrize("content", GOOD)
def test_editors_accept_what_is_valid(validator, content):
    """No red line under a file that applies."""
    document = {"version": 1, **content}
    load_desired(json.dumps(document).encode())
    assert validator.fits(document)


@pytest.mark.parametrize("content", BAD)
def test_editors_refuse_what_is_invalid(validator, content):
    """A mistake of form shows while it is typed."""
    document = {"version": 1, **content}
    with pytest.raises(InvalidDocument):
        load_desired(json.dumps(document).encode())
    assert not validator.fits(document)


def objects_of(node):
    """Yield every schema of an object."""
    if isinstance(node, dict):
        if "properties" in node and "type" in node:
            yield node
        for inner in node.values():
            yield from objects_of(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from objects_of(inner)


def test_every_key_is_described():
    """What an editor shows beside a key is what the model's docstring says."""
    undescribed = [
        f"{one.get('title')}.{name}"
        for one in objects_of(json_schema())
        for name, key in one["properties"].items()
        if not key.get("description") and "$ref" not in key
    ]
    assert undescribed == []


def test_defaults_are_shown_as_documents_write_them():
    """30s, not 30.0."""
    definitions = json_schema()["$defs"]
    assert definitions["Pool"]["properties"]["idle_timeout"]["default"] == "30s"
    assert definitions["Health"]["properties"]["panic"]["default"] == "50%"
    assert definitions["Consul"]["properties"]["register"]["default"] is False


def patterns_of(node):
    """Yield every schema of a text with a pattern."""
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node
        for inner in node.values():
            yield from patterns_of(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from patterns_of(inner)


def test_patterns_are_explained():
    """Whoever writes 5 seconds is told how a duration looks, not which regular expression it misses."""
    messages = {each["pattern"]: each.get("patternErrorMessage") for each in patterns_of(json_schema())}
    assert 'Must look like "250ms", "5s", "3m", "1h".' in messages.values()
    assert [pattern for pattern, message in messages.items() if message is None] == []


def test_a_backend_is_judged_as_what_it_is(validator):
    """A mapping with a mistake is measured as a mapping, so an editor names the key and not the short form."""
    backend = json_schema()["$defs"]["Backend"]
    assert "anyOf" not in backend
    assert backend["if"] == {"type": "object"}
    assert backend["then"]["required"] == ["address"]
    for good in ("127.0.0.1:1", {"address": "127.0.0.1:1"}):
        assert validator.fits(good, backend)
    for bad in ("127.0.0.1", {"adress": "127.0.0.1:1"}, 5001, None):
        assert not validator.fits(bad, backend)


def test_it_is_json_schema_2020_12():
    """The dialect is named, and every reference has its definition."""
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    references = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema)))
    assert references <= set(schema["$defs"])
