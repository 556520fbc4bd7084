"""Who is asking: the dependencies every route takes its identity and its scope from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request

from atoll.core.errors import Forbidden, NotFound, Unauthorized
from atoll.core.resources import KINDS, SYSTEM_PROJECT, Kind
from atoll.core.store import Scope
from atoll.governance.access import OPERATE, READ, WRITE, check
from atoll.governance.keys import Identity
from atoll.server.centre import Centre


def centre_of(request: Request) -> Centre:
    """The centre this application serves."""
    centre: Centre = request.app.state.centre
    return centre


CentreOf = Annotated[Centre, Depends(centre_of)]


def identify(centre: CentreOf, authorization: Annotated[str, Header()] = "") -> Identity:
    """Who holds the bearer key; Unauthorized without one."""
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise Unauthorized(
            "an API key is needed", hint="send Authorization: Bearer sk-atoll-…; see `atoll keys create`"
        )
    return centre.keyring.identify(key.strip())


Identified = Annotated[Identity, Depends(identify)]


@dataclass(frozen=True, slots=True)
class Tenant:
    """An identity allowed into one project, and the store's view of that project."""

    identity: Identity
    project: str
    scope: Scope


def _tenant(centre: Centre, identity: Identity, project: str, verb: str) -> Tenant:
    check(identity, verb, project)
    scope = centre.store.scope(project, identity.key_id)
    if project != SYSTEM_PROJECT and centre.store.everything().find("Project", project, SYSTEM_PROJECT) is None:
        raise NotFound(f"there is no project {project!r}", hint="atoll get projects --project system")
    return Tenant(identity, project, scope)


def reader(centre: CentreOf, identity: Identified, project: str) -> Tenant:
    """May read in the project of the path."""
    return _tenant(centre, identity, project, READ)


def writer(centre: CentreOf, identity: Identified, project: str) -> Tenant:
    """May write in the project of the path."""
    return _tenant(centre, identity, project, WRITE)


def operator(identity: Identified) -> Identity:
    """One of the platform's own parts."""
    check(identity, OPERATE, SYSTEM_PROJECT)
    return identity


Reader = Annotated[Tenant, Depends(reader)]
Writer = Annotated[Tenant, Depends(writer)]
Operator = Annotated[Identity, Depends(operator)]


def kind_in(name: str, project: str) -> Kind:
    """The kind, if things of it live in this project."""
    kind = KINDS.named(name)
    if (kind.scope == "system") != (project == SYSTEM_PROJECT):
        home = SYSTEM_PROJECT if kind.scope == "system" else "an ordinary project"
        raise NotFound(f"{kind.plural} do not live in project {project!r}", hint=f"they live in {home}")
    return kind


def writable(kind: Kind) -> Kind:
    """The kind, unless only controllers make it."""
    if kind.is_internal:
        raise Forbidden(f"{kind.plural} are made by the platform, not by hand", hint="change what owns them")
    return kind
