"""Who is asking: the dependencies every route takes its identity and its scope from."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Any

from fastapi import Depends, Header, Request

from atoll.core.errors import Conflict, Forbidden, NotFound, Unauthorized
from atoll.core.resources import KINDS, SYSTEM_PROJECT, Kind, Resource
from atoll.core.store import Scope
from atoll.governance.access import MANAGE, OPERATE, READ, WRITE, check, is_at_least, who
from atoll.governance.keys import Identity, is_from
from atoll.server.centre import Centre


def centre_of(request: Request) -> Centre:
    """The centre this application serves."""
    centre: Centre = request.app.state.centre
    return centre


CentreOf = Annotated[Centre, Depends(centre_of)]


def identify(request: Request, centre: CentreOf, authorization: Annotated[str, Header()] = "") -> Identity:
    """Who holds the bearer key; Unauthorized without one, Forbidden from where the key may not be used."""
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise Unauthorized(
            "an API key is needed", hint="send Authorization: Bearer sk-atoll-…; see `atoll keys create`"
        )
    identity = centre.keyring.identify(key.strip())
    address = client_address(request.client.host if request.client else "", request.headers.getlist("x-forwarded-for"))
    if not is_from(identity.addresses, address):
        raise Forbidden(
            f"key {identity.key_id} may not be used from {address or 'an unknown address'}",
            hint="ask an owner of its project: atoll keys limit ID --address-from NETWORK",
        )
    return identity


def client_address(peer: str, forwarded: list[str]) -> str:
    """Where a request comes from: the connection's `peer`, unless that is on this machine, as gateways are.

    A peer on this machine is believed about whom it forwards for: the last address of the x-forwarded-for lines that
    is not itself of this machine. What stands before that was written by strangers.
    """
    chain = [part.strip() for line in forwarded for part in line.split(",")]
    while is_loopback(peer) and chain:
        peer = chain.pop()
    return peer


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine; what is no address is not."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


Identified = Annotated[Identity, Depends(identify)]


@dataclass(frozen=True, slots=True)
class Tenant:
    """An identity allowed into one project, and the store's view of that project."""

    identity: Identity
    project: str
    scope: Scope


def _tenant(centre: Centre, identity: Identity, project: str, verb: str) -> Tenant:
    check(identity, verb, project)
    actor = f"{identity.user} ({identity.key_id})" if identity.user else identity.key_id
    scope = centre.store.scope(project, actor)
    if project != SYSTEM_PROJECT:
        _check_is_there(centre.store.everything().find("Project", project, SYSTEM_PROJECT), project, verb)
    return Tenant(identity, project, scope)


def _check_is_there(found: Resource | None, project: str, verb: str) -> None:
    if found is None:
        raise NotFound(f"there is no project {project!r}", hint="atoll get projects --project system")
    if found.is_deleting and verb == WRITE:
        raise Conflict(f"project {project!r} is being deleted", hint="nothing can be made or changed in it any more")


def reader(centre: CentreOf, identity: Identified, project: str) -> Tenant:
    """May read in the project of the path."""
    return _tenant(centre, identity, project, READ)


def writer(centre: CentreOf, identity: Identified, project: str) -> Tenant:
    """May write in the project of the path."""
    return _tenant(centre, identity, project, WRITE)


def may_still_read(request: Request, project: str) -> bool:
    """Whether the key of a request that is being answered for long may go on reading; asked again and again."""
    try:
        identity = identify(request, centre_of(request), request.headers.get("authorization", ""))
        check(identity, READ, project)
    except (Unauthorized, Forbidden):
        return False
    return True


def manager(centre: CentreOf, identity: Identified, project: str) -> Tenant:
    """May manage the project of the path: its members, keys and secrets."""
    return _tenant(centre, identity, project, MANAGE)


def operator(identity: Identified) -> Identity:
    """One of the platform's own parts."""
    check(identity, OPERATE, SYSTEM_PROJECT)
    return identity


Reader = Annotated[Tenant, Depends(reader)]
Writer = Annotated[Tenant, Depends(writer)]
Manager = Annotated[Tenant, Depends(manager)]
Operator = Annotated[Identity, Depends(operator)]


def creator_of(tenant: Tenant) -> str:
    """PROJECT/KEY of who asks."""
    return f"{tenant.identity.project}/{tenant.identity.key_id}"


def signed(kind: Kind, spec: dict[str, Any], before: Resource | None, tenant: Tenant) -> dict[str, Any]:
    """The spec as it is to be stored: where the kind is charged, with who asked for what stands in it.

    That stays so while nothing else of the spec changes, whoever writes it again. Who changes it asks for other work,
    which is theirs to pay for, within the bounds of their own key. What the caller says of it is not believed.
    """
    if not kind.is_charged:
        return spec
    is_same = before is not None and _unsigned(before.spec) == _unsigned(spec)
    if before is not None and is_same and (before.spec.get("creator") or before.phase == "succeeded"):
        return before.spec  # one that succeeded before askers were noted is not done again
    return spec | {"creator": creator_of(tenant)}


def _unsigned(spec: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in spec.items() if name != "creator"}


def kind_in(name: str, project: str) -> Kind:
    """The kind, if things of it live in this project."""
    kind = KINDS.named(name)
    if (kind.scope == "system") != (project == SYSTEM_PROJECT):
        home = SYSTEM_PROJECT if kind.scope == "system" else "an ordinary project"
        raise NotFound(f"{kind.plural} do not live in project {project!r}", hint=f"they live in {home}")
    return kind


def writable(kind: Kind, tenant: Tenant) -> Kind:
    """The kind, unless only controllers make it or the tenant's role is below its writers'."""
    if kind.is_internal:
        raise Forbidden(f"{kind.plural} are made by the platform, not by hand", hint="change what owns them")
    if not is_at_least(tenant.identity, kind.writers, tenant.project):
        raise Forbidden(
            f"{who(tenant.identity, tenant.project)} may not write {kind.plural}",
            hint=f"ask one who is {kind.writers} of project {tenant.project!r}",
        )
    return kind
