from __future__ import annotations

from pathlib import Path

import pytest

from schemas.desired import desired_of, json_schema
from schemas.discovery import CONSUL_FILES
from schemas.errors import InvalidDocument
from schemas.files import CERTIFICATE_FILES, SERVICE_FILES, at_folder
from schemas.reading.document import scan_document

SERVICES = b"""
version: 1
defaults: {tls: {client_ca: ca.pem}}
services:
  web:
    listen: ":443"
    backends: ["127.0.0.1:5001"]
    tls: {certificates: [{cert: a.pem, key: /keys/a.pem}, {cert: ../b.pem, key: k/b.pem}]}
    backend_tls: {cert: own.pem, key: own.pem}
  old:
    listen: ":444"
    backends: ["127.0.0.1:5001"]
    tls: {certificates: [{cert: c.pem, key: c.pem}]}
    backend_tls: {ca: authorities/own.pem}
"""


def test_relative_paths_start_at_the_folder_of_the_file_that_names_them():
    """Of every file that the format names; what is checked afterwards has the absolute paths."""
    text = b"""
version: 1
services: {}
consul: {address: "https://127.0.0.1:8501", token_file: t, ca_file: ca/x, cert_file: /c, key_file: ../k}
"""
    document = at_folder(scan_document(text), Path("/etc/lb"))
    consul = desired_of(document).consul
    found = [consul.token_file, consul.ca_file, consul.cert_file, consul.key_file]
    assert found == ["/etc/lb/t", "/etc/lb/ca/x", "/c", "/etc/lb/../k"]
    assert document.value["consul"] == consul.model_dump(exclude_unset=True)


@pytest.mark.parametrize(
    "text", ["[]", "version: 1", "consul: [a]", "consul: {token_file: '', ca_file: 3, address: a}"]
)
def test_what_is_no_path_stays_as_it_is(text):
    """The check that follows says what is wrong with it."""
    document = scan_document(text.encode())
    assert at_folder(document, Path("/etc/lb")).value == document.value


def test_every_key_that_names_a_file_is_known():
    """The schema has no other, wherever it stands."""

    def keys(value):
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        own = value.get("properties", {}) if isinstance(value, dict) else {}
        return set(own).union(*map(keys, inner))

    assert {key for key in keys(json_schema()) if key.endswith("_file")} == set(CONSUL_FILES)


def test_relative_paths_of_services_start_there_too():
    """Of what `defaults` say and of what services say; `system` is no file."""
    services = desired_of(at_folder(scan_document(SERVICES), Path("/etc/lb"))).services
    web, old = services["web"], services["old"]
    assert web.tls is not None
    assert web.backend_tls is not None
    assert old.tls is not None
    assert old.backend_tls is not None
    assert [(one.cert, one.key) for one in web.tls.certificates] == [
        ("/etc/lb/a.pem", "/keys/a.pem"),
        ("/etc/lb/../b.pem", "/etc/lb/k/b.pem"),
    ]
    assert web.tls.client_ca == old.tls.client_ca == "/etc/lb/ca.pem"
    assert (web.backend_tls.ca, web.backend_tls.cert) == ("system", "/etc/lb/own.pem")
    assert old.backend_tls.ca == "/etc/lb/authorities/own.pem"


def test_without_a_folder_services_need_absolute_paths():
    """What is in a key of Consul's has none, and each node would look elsewhere: it says so where the path stands."""
    with pytest.raises(InvalidDocument) as caught:
        desired_of(at_folder(scan_document(SERVICES), None))
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert found.keys() == {
        "defaults.tls.client_ca",
        *(f"services.web.tls.certificates[{index}].cert" for index in (0, 1)),
        "services.web.tls.certificates[1].key",
        *(f"services.old.tls.certificates[0].{key}" for key in ("cert", "key")),
        *(f"services.web.backend_tls.{key}" for key in ("cert", "key")),
        "services.old.backend_tls.ca",
    }
    assert "must be an absolute path here" in found["services.old.backend_tls.ca"]


def test_without_a_folder_files_of_consul_start_where_we_were_started():
    """They are the daemon's own, as they were before services had files."""
    text = b'version: 1\nservices: {}\nconsul: {address: "https://127.0.0.1:8501", ca_file: ca}\n'
    consul = desired_of(at_folder(scan_document(text), None)).consul
    assert consul.ca_file == str(Path.cwd() / "ca")


@pytest.mark.parametrize(
    "text",
    [
        "services: []",
        "services: {web: 1}",
        "services: {web: {tls: 1, backend_tls: []}}",
        "services: {web: {tls: {certificates: x, client_ca: ''}}}",
        "services: {web: {tls: {certificates: [x, {cert: 1}]}}}",
        "defaults: 3",
    ],
)
def test_what_is_no_path_of_a_service_stays_as_it_is(text):
    """The check that follows says what is wrong with it."""
    document = scan_document(text.encode())
    assert at_folder(document, Path("/etc/lb")).value == document.value


def test_every_file_of_a_service_is_known():
    """The keys that the schema describes as a file of a service are those that are made absolute."""
    definitions = json_schema()["$defs"]

    def files(model):
        return {
            name for name, one in definitions[model]["properties"].items() if one.get("maxLength") == 4096
        }

    assert files("Certificate") == set(CERTIFICATE_FILES)
    assert files("Tls") - {"ciphers"} == set(SERVICE_FILES["tls"])
    assert files("BackendTls") == set(SERVICE_FILES["backend_tls"])
