"""Routes of API keys and usage statements."""

from __future__ import annotations

import secrets
import time
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from atoll.core.errors import Forbidden
from atoll.core.store import Create, SetSpec
from atoll.governance.keys import hash_of, new_key
from atoll.governance.resources import API_KEY, Role
from atoll.server.access import CentreOf, Reader, Writer
from atoll.server.api import Body

router = APIRouter(prefix="/api/v1/projects/{project}")


class NewKey(Body):
    """What the key shall be allowed."""

    description: str = Field("", max_length=200)
    role: Role = "member"
    expires_in_s: float | None = Field(None, gt=0)
    models: list[str] | None = None


@router.post("/keys")
def create_key(tenant: Writer, wanted: NewKey) -> dict[str, Any]:
    """Make a key; its secret is in this answer and nowhere else."""
    if wanted.role in ("admin", "system") and not tenant.identity.is_admin:
        raise Forbidden(f"only administrators make {wanted.role} keys", hint="ask for role member or viewer")
    key = new_key()
    name = f"key-{secrets.token_hex(5)}"
    spec = API_KEY.parse_spec(
        {
            "description": wanted.description,
            "role": wanted.role,
            "expires_at": None if wanted.expires_in_s is None else time.time() + wanted.expires_in_s,
            "models": wanted.models,
            "sha256": hash_of(key),
        }
    )
    tenant.scope.write([Create("ApiKey", tenant.project, name, spec, {"phase": "ready"})])
    return {**tenant.scope.get("ApiKey", name).to_dict(), "id": name, "key": key}


@router.delete("/keys/{name}")
def revoke_key(tenant: Writer, name: str) -> dict[str, Any]:
    """Refuse the key from now on; its usage stays on record."""
    key = tenant.scope.get("ApiKey", name)
    if not key.spec["revoked"]:
        tenant.scope.write([SetSpec(key, key.spec | {"revoked": True}, reason="Revoked")])
    return tenant.scope.get("ApiKey", name).to_dict()


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
