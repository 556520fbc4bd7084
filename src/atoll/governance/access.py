"""Who may do what: a pure decision from an identity, a verb and a project."""

from __future__ import annotations

from atoll.core.errors import Forbidden
from atoll.core.resources import SYSTEM_PROJECT
from atoll.governance.keys import Identity

READ, WRITE, OPERATE = "read", "write", "operate"
"""`operate` is for agents and gateways: the platform's own parts."""


def check(identity: Identity, verb: str, project: str) -> None:
    """Forbidden unless `identity` may do `verb` in `project`."""
    if identity.role == "admin":
        return
    if identity.role == "system":
        if verb == OPERATE:
            return
    elif verb != OPERATE and project == SYSTEM_PROJECT:
        raise Forbidden("the fleet is the administrators' only", hint="use an admin key")
    elif project == identity.project and (verb == READ or (verb == WRITE and identity.role == "member")):
        return
    raise Forbidden(
        f"key {identity.key_id} ({identity.role} of {identity.project!r}) may not {verb} in project {project!r}",
        hint="ask for a key of that project, or for an admin key",
    )
