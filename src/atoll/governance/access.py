"""Who may do what: a pure decision from an identity, a verb and a project.

role     read  write  manage  operate
admin    x     x      x       x        in every project, and the fleet
owner    x     x      x                in its projects: also members, keys, secrets and budgets
member   x     x                       in its projects
viewer   x                             in its projects
caller                                 calls models in its projects, which no other route but the gateway's is for
system                        x        agents and gateways
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.core.errors import Forbidden
from atoll.core.resources import SYSTEM_PROJECT, Resource
from atoll.governance.keys import Identity, rank, user_of

READ, WRITE, MANAGE, OPERATE = "read", "write", "manage", "operate"
"""`manage` is for members, keys, secrets and budgets; `operate` is for the platform's own parts."""

NEEDED = {READ: "viewer", WRITE: "member", MANAGE: "owner"}
"""The least role for a verb."""


def check(identity: Identity, verb: str, project: str) -> None:
    """Forbidden unless `identity` may do `verb` in `project`."""
    if identity.is_admin or (identity.role == "system" and verb == OPERATE):
        return
    if identity.role != "system" and verb != OPERATE and project == SYSTEM_PROJECT:
        raise Forbidden("the fleet is the administrators' only", hint="use an admin key")
    if verb in NEEDED and project != SYSTEM_PROJECT and is_at_least(identity, NEEDED[verb], project):
        return
    raise Forbidden(f"{who(identity, project)} may not {verb} in project {project!r}", hint=_way_out(identity))


def is_at_least(identity: Identity, role: str, project: str) -> bool:
    """Whether `identity` is `role` or more in `project`."""
    return rank(identity.role_in(project)) >= rank(role)


def check_new_key(identity: Identity, project: str, wanted: Mapping[str, Any], maker: Mapping[str, Any]) -> None:
    """Forbidden unless `identity` may give somebody in `project` a key with the spec `wanted`.

    Nobody makes more than they are themselves: neither a higher role, nor a key of somebody else, nor, below owner,
    a key that is freer than the one in hand, whose spec is `maker`.
    """
    if identity.is_admin:
        return
    me = who(identity, project)
    if not 0 < rank(wanted["role"]) <= rank(identity.role_in(project)):
        least = wanted["role"] if 0 < rank(wanted["role"]) < rank("admin") else "an administrator"
        raise Forbidden(f"{me} may not make {wanted['role']} keys", hint=f"ask one who is {least}")
    if wanted["user"] and wanted["user"] != identity.user:
        raise Forbidden(
            f"{me} may not make a key of user {wanted['user']!r}: it would act wherever that user may",
            hint="administrators and the user may",
        )
    if is_at_least(identity, "owner", project):
        return
    if wanted["priority"] == "high":
        raise Forbidden(f"{me} may not make keys of high priority", hint="ask an owner of the project")
    if bounds := restrictions(maker):
        words = f"{me} has bounds of its own ({', '.join(bounds)}) and may not make keys without them"
        raise Forbidden(words, hint="ask an owner of the project")


def check_key_change(identity: Identity, key: Resource, *, user: str | None = None) -> None:
    """Forbidden unless `identity` may change what `key` is allowed, or (with `user`) whose it is."""
    _check_managed(identity, key, "change")
    if user and user not in (identity.user, user_of(key)) and not identity.is_admin:
        raise Forbidden(
            f"{who(identity, key.project)} may not make {key.name} a key of user {user!r}",
            hint="it would act wherever that user may; administrators and the user may",
        )


def check_revocation(identity: Identity, key: Resource) -> None:
    """Forbidden unless `key` is `identity`'s own, or of its user, or one it manages."""
    if not is_own(identity, key):
        _check_managed(identity, key, "revoke")


def check_rotation(identity: Identity, key: Resource) -> None:
    """Forbidden unless `identity` may hold the successor of `key`: its own key, or one that is nobody's and managed."""
    if is_own(identity, key) or identity.is_admin:
        return
    _check_managed(identity, key, "rotate")
    user = user_of(key)
    if user:
        raise Forbidden(
            f"key {key.name} is of user {user!r}, who alone may hold the next one",
            hint=f"revoke it: atoll keys revoke {key.name}",
        )


def is_own(identity: Identity, key: Resource) -> bool:
    """Whether the key is the one in hand, or of the same user and not above it."""
    if (key.name, key.project) == (identity.key_id, identity.project):
        return True
    same_user = bool(identity.user) and user_of(key) == identity.user
    return same_user and rank(key.spec["role"]) <= rank(identity.role)


def _check_managed(identity: Identity, key: Resource, verb: str) -> None:
    if identity.is_admin:
        return
    is_owner = is_at_least(identity, "owner", key.project)
    if not is_owner or not 0 < rank(key.spec["role"]) <= rank("owner"):
        raise Forbidden(
            f"{who(identity, key.project)} may not {verb} key {key.name} ({key.spec['role']})",
            hint="owners of its project may, and of admin and system keys administrators",
        )


def restrictions(key_spec: Mapping[str, Any]) -> list[str]:
    """The fields by which a key may do less than its role."""
    bounds = [name for name in ("expires_at", "models", "addresses", "limits") if key_spec[name] is not None]
    if key_spec["priority"] == "batch":
        bounds.append("priority")
    if key_spec["charged_to"]:
        bounds.append("charged_to")
    return bounds


def who(identity: Identity, project: str) -> str:
    """The identity as errors name it: the key, whose it is and what it is."""
    if identity.user:
        return f"key {identity.key_id} of {identity.user} ({identity.role_in(project) or 'no member'} of {project!r})"
    return f"key {identity.key_id} ({identity.role} of {identity.project!r})"


def _way_out(identity: Identity) -> str:
    if identity.user:
        return "ask an owner of that project for a membership: atoll members add USER --role member"
    return "ask for a key of that project, or for an admin key"
