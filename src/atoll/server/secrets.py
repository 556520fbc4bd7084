"""Routes of secrets: values go in and never come out."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from atoll.core.errors import Invalid
from atoll.core.resources import check_name
from atoll.core.store import Create, Remove, SetSpec, Write
from atoll.governance.data_keys import RESERVED
from atoll.governance.resources import SECRET
from atoll.governance.secrets import changed
from atoll.server.access import CentreOf, Manager
from atoll.server.api import Body

router = APIRouter(prefix="/api/v1/projects/{project}")


class Values(Body):
    """Values to set; null takes one away, those not named stay."""

    name: str
    values: dict[str, str | None] = Field(default_factory=dict)
    description: str | None = Field(None, max_length=200)


@router.post("/secrets")
def set_secret(centre: CentreOf, tenant: Manager, wanted: Values) -> dict[str, Any]:
    """Make a secret or change some of its values; the answer has their names."""
    name = check_name(wanted.name)
    if name.startswith(RESERVED):
        raise Invalid(f"secret {name!r}: names with {RESERVED} are the platform's own", field="name", hint="rename it")
    found = tenant.scope.find("Secret", name)
    before = centre.secrets.open(tenant.project, name, found.spec["sealed"]) if found else {}
    values = changed(before, wanted.values)
    if not values:
        raise Invalid(f"secret {name!r} would have no values", field="values", hint=f"atoll secrets remove {name}")
    description = wanted.description if wanted.description is not None else (found.spec["description"] if found else "")
    sealed = centre.secrets.seal(tenant.project, name, values)
    spec = SECRET.parse_spec({"description": description, "names": sorted(values), "sealed": sealed})
    said = ", ".join(sorted(wanted.values))
    write: Write = (
        Create("Secret", tenant.project, name, spec, {"phase": "ready"}, message=said)
        if found is None
        else SetSpec(found, spec, message=said)
    )
    tenant.scope.write([write])
    return tenant.scope.get("Secret", name).to_dict()


@router.delete("/secrets/{name}")
def remove_secret(tenant: Manager, name: str) -> dict[str, Any]:
    """Take the secret with all its values out; what runs with them keeps them until it is started again."""
    tenant.scope.write([Remove(tenant.scope.get("Secret", name))])
    return {"deleted": True}
