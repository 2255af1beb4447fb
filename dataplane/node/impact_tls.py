"""What a change does to TLS: which certificates clients and backends are shown from then on, and which names get another service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from dataplane.core.spec import ServiceSpec
from dataplane.node.tls import ServiceTls
from dataplane.tls.files import shown_time
from dataplane.tls.service import CertificateView
from schemas.replies import CertificateImpact, NameImpact

_Owners = dict[str, frozenset[str]]
"""By name: the services that ask for it; those without a name have the empty one."""


def certificate_impacts(service: str, before: ServiceTls, after: ServiceTls) -> Iterator[CertificateImpact]:
    """Yield the certificates that are shown no more, and those that are shown newly, by number."""
    for old, new in zip(before, after, strict=True):
        if old is new:
            continue
        gone, come = ({} if one is None else _by_number(one.files.views()) for one in (old, new))
        for number, view in gone.items():
            if number not in come:
                yield _impact("remove", service, view)
        for number, view in come.items():
            if number not in gone:
                yield _impact("add", service, view)


def _by_number(views: Iterable[CertificateView]) -> dict[tuple[str, str], CertificateView]:
    return {(view.cert, view.serial): view for view in views}


def _impact(action: str, service: str, view: CertificateView) -> CertificateImpact:
    return {
        "action": "add" if action == "add" else "remove",
        "service": service,
        "place": view.place,
        "cert": view.cert,
        "names": list(view.names),
        "ends": shown_time(view.not_after),
    }


def name_impacts(before: Iterable[ServiceSpec], after: Iterable[ServiceSpec]) -> list[NameImpact]:
    """Return the names whose clients get another service, of addresses that are listened on before and after.

    A name that nobody asks for any more goes to `*.` of it or to who takes the rest; to nobody, if there is none.
    """
    old, new = _by_address(before), _by_address(after)
    found: dict[tuple[str, str, str], NameImpact] = {}
    for address in old.keys() & new.keys():
        for name in sorted((old[address].keys() | new[address].keys()) - {""}):
            source, target = (_said(_owner(owners[address], name)) for owners in (old, new))
            if source != target:
                found[name, source, target] = {"name": name, "from": source, "to": target}
    return [found[key] for key in sorted(found)]


def _by_address(specs: Iterable[ServiceSpec]) -> dict[str, _Owners]:
    found: dict[str, _Owners] = {}
    for spec in specs:
        for address in spec.listen:
            owners = found.setdefault(address, {})
            for name in (spec.match.sni if spec.match else ()) or ("",):
                owners[name] = owners.get(name, frozenset()) | {spec.name}
    return found


def _owner(owners: Mapping[str, frozenset[str]], name: str) -> frozenset[str]:
    nobody: frozenset[str] = frozenset()
    wildcard = f"*.{name.partition('.')[2]}"
    return owners.get(name) or owners.get(wildcard) or owners.get("", nobody)


def _said(owner: frozenset[str]) -> str:
    return ", ".join(sorted(owner))
