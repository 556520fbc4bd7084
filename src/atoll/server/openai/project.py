"""Who asks, and in which project: the key's own, or the one the OpenAI-Project header names."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Path

from atoll.core.errors import NotFound
from atoll.core.resources import Resource
from atoll.server import access
from atoll.server.access import CentreOf, Identified, Tenant

ProjectHeader = Annotated[str, Header(alias="OpenAI-Project", description="Project, where not the key's own.")]


Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.-]{1,128}$", description="Its id.")]


def viewer(centre: CentreOf, identity: Identified, project: ProjectHeader = "") -> Tenant:
    """May read in the project meant."""
    return access.reader(centre, identity, project or identity.home)


def member(centre: CentreOf, identity: Identified, project: ProjectHeader = "") -> Tenant:
    """May write in the project meant."""
    return access.writer(centre, identity, project or identity.home)


Viewer = Annotated[Tenant, Depends(viewer)]
Member = Annotated[Tenant, Depends(member)]


def may_be_name(text: str) -> bool:
    """Whether a database may be asked for something called so; PostgreSQL refuses some characters."""
    return text.isascii() and text.isprintable()


def find(tenant: Tenant, kind: str, name: str, what: str) -> Resource:
    """The living resource called `name`, else NotFound in the words of the API."""
    found = tenant.scope.find(kind, name) if may_be_name(name) else None
    if found is None or found.is_deleting:
        raise NotFound(f"No such {what}: {name[:100]!r}.", field="id", hint=f"project {tenant.project!r}")
    return found
