"""Routes of API keys and usage statements."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from atoll.core.errors import Conflict, Forbidden, Invalid
from atoll.core.resources import SYSTEM_PROJECT
from atoll.core.store import Create, SetSpec
from atoll.governance.access import check_key_change, check_new_key, check_revocation, check_rotation
from atoll.governance.keys import hash_of, is_valid, new_key
from atoll.governance.members import key_fields, read_keys
from atoll.governance.resources import API_KEY, Limits, Role
from atoll.server.access import CentreOf, Reader, Tenant, Writer
from atoll.server.api import Body
from atoll.server.centre import Centre

router = APIRouter(prefix="/api/v1/projects/{project}")

DAY_S = 86_400.0
OVERLAP_S_MAX = 90 * DAY_S


class KeyFields(Body):
    """What a key shall be allowed."""

    description: str = Field("", max_length=200)
    expires_in_s: float | None = Field(None, gt=0, allow_inf_nan=False, description="Null: never.")
    models: list[str] | None = Field(None, min_length=1, description="Names of models; null: all.")
    addresses: list[str] | None = Field(None, min_length=1, description="Networks it may be used from; null: any.")
    limits: Limits | None = None
    priority: str = "normal"
    user: str | None = Field(None, description='Whose it is; "": nobody\'s.')


class NewKey(KeyFields):
    """A key to make."""

    role: Role = "member"


class Rotation(Body):
    """How a key gives way to its successor."""

    overlap_s: float = Field(DAY_S, ge=0, le=OVERLAP_S_MAX, description="How long the old one still works.")
    expires_in_s: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="When the new one ends; null: when the old one would have."
    )


@router.get("/keys")
def list_keys(centre: CentreOf, tenant: Reader) -> dict[str, Any]:
    """All keys of the project with the Unix time each was last used for a model; secrets and hashes are not shown."""
    keys = tenant.scope.find_all("ApiKey")
    used = centre.ledger.last_used([key.name for key in keys])
    return {"items": [{**key.to_dict(), "last_used_at": used.get(key.name)} for key in keys]}


@router.post("/keys")
def create_key(centre: CentreOf, tenant: Writer, wanted: NewKey) -> dict[str, Any]:
    """Make a key; its secret is in this answer and nowhere else. Nobody makes a key that may do more than their own."""
    identity = tenant.identity
    fields = _as_spec(wanted.model_dump(), centre.clock.now())
    if wanted.user is None:
        fields["user"] = "" if identity.is_admin or identity.role_in(tenant.project) == "owner" else identity.user
    key = new_key()
    spec = API_KEY.parse_spec({**fields, "sha256": hash_of(key)})
    check_new_key(identity, tenant.project, spec, _own_fields(centre, tenant))
    _check_user(centre, spec["user"], tenant)
    name = _new_id()
    tenant.scope.write([Create("ApiKey", tenant.project, name, spec, {"phase": "ready"})])
    return {**tenant.scope.get("ApiKey", name).to_dict(), "id": name, "key": key}


@router.patch("/keys/{name}")
def change_key(centre: CentreOf, tenant: Writer, name: str, wanted: KeyFields) -> dict[str, Any]:
    """Change the fields that are given; the rest, the role and the secret stay."""
    key = tenant.scope.get("ApiKey", name)
    given = wanted.model_dump(exclude_unset=True)
    if given.get("user", "") is None:
        given["user"] = ""
    check_key_change(tenant.identity, key, user=given.get("user"))
    spec = API_KEY.parse_spec(key_fields(key) | _as_spec(given, centre.clock.now()))
    _check_user(centre, given.get("user") or "", tenant)
    if spec != key.spec:
        tenant.scope.write([SetSpec(key, spec, message=", ".join(sorted(given)))])
    return tenant.scope.get("ApiKey", name).to_dict()


@router.post("/keys/{name}/rotate")
def rotate_key(centre: CentreOf, tenant: Reader, name: str, wanted: Rotation) -> dict[str, Any]:
    """Make the key's successor, which may do the same; the old one ends after the overlap, or sooner if it would."""
    old, now = tenant.scope.get("ApiKey", name), centre.clock.now()
    check_rotation(tenant.identity, old)
    if not is_valid(old, now):
        raise Conflict(f"key {name} is expired or revoked", hint="make a new one: atoll keys create")
    spec = key_fields(old)
    ends_at = now + wanted.overlap_s if spec["expires_at"] is None else min(spec["expires_at"], now + wanted.overlap_s)
    expires_at = spec["expires_at"]
    if wanted.expires_in_s is not None:
        check_key_change(tenant.identity, old)
        expires_at = now + wanted.expires_in_s
    key, successor = new_key(), _new_id()
    new_spec = spec | {"sha256": hash_of(key), "replaces": name, "expires_at": expires_at}
    tenant.scope.write(
        [
            Create("ApiKey", tenant.project, successor, new_spec, {"phase": "ready"}, old.labels),
            SetSpec(old, spec | {"expires_at": ends_at}, reason="Rotated", message=f"{successor} takes its place"),
        ]
    )
    made = tenant.scope.get("ApiKey", successor).to_dict()
    return {**made, "id": successor, "key": key, "replaces": name, "replaced_ends_at": ends_at}


@router.delete("/keys/{name}")
def revoke_key(tenant: Reader, name: str) -> dict[str, Any]:
    """Refuse the key from now on; its usage stays on record."""
    key = tenant.scope.get("ApiKey", name)
    check_revocation(tenant.identity, key)
    if not key.spec["revoked"]:
        tenant.scope.write([SetSpec(key, key.spec | {"revoked": True}, reason="Revoked")])
    return tenant.scope.get("ApiKey", name).to_dict()


def _as_spec(given: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Fields of a body as fields of a key's spec."""
    fields = {name: value for name, value in given.items() if name != "expires_in_s"}
    if "expires_in_s" in given:
        fields["expires_at"] = None if given["expires_in_s"] is None else now + given["expires_in_s"]
    return fields


def _own_fields(centre: Centre, tenant: Tenant) -> dict[str, Any]:
    """The spec of the key in hand; one that a budget bounds may not make others, which would be outside of it."""
    identity = tenant.identity
    everything = centre.store.everything()
    own = everything.get("ApiKey", identity.key_id, identity.project)
    bounded = {budget.spec["key"] for budget in everything.find_all("Budget")} & {*read_keys(everything).lineage(own)}
    if bounded and not identity.is_admin and identity.role_in(tenant.project) != "owner":
        raise Forbidden(
            f"key {identity.key_id} has a budget of its own and may not make keys without it",
            hint="ask an owner of the project",
        )
    return key_fields(own)


def _check_user(centre: Centre, user: str, tenant: Tenant) -> None:
    """A key of nobody known would be refused everywhere, and nobody would know why."""
    if user and centre.store.everything().find("User", user, SYSTEM_PROJECT) is None:
        raise Invalid(f"there is no user {user!r}", field="user", hint="make one: atoll users create NAME")


def _new_id() -> str:
    return f"key-{secrets.token_hex(5)}"


@router.get("/usage")
def usage(
    centre: CentreOf, tenant: Reader, since: float = 0.0, until: float = float("inf"), by: str = "key,model"
) -> dict[str, Any]:
    """A statement: tokens and cost per key and model in [since, until), Unix seconds."""
    groups = [part for part in by.split(",") if part]
    lines = centre.ledger.statement(tenant.project, since=since, until=until, by=groups)
    rows = [line.to_dict() for line in lines]
    summed = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens")
    total: dict[str, Any] = {name: sum(row[name] for row in rows) for name in summed}
    total["cost"] = {c: round(sum(r["cost"] for r in rows if r["currency"] == c), 6) for c in _currencies(rows)}
    return {"rows": rows, "total": total}


def _currencies(rows: list[dict[str, Any]]) -> list[str]:
    return sorted({row["currency"] for row in rows if row["currency"]})
