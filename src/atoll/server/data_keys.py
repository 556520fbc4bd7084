"""Routes of data keys: the key that seals a project's uploads is rotated here; no route shows one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from atoll.server.access import CentreOf, Manager, kind_in

router = APIRouter(prefix="/api/v1/projects/{project}")


@router.post("/datakeys/rotate")
def rotate(centre: CentreOf, tenant: Manager) -> dict[str, Any]:
    """Seal the project's uploads under a new key: new ones from now on, those there are in the background.

    The DataKey in the answer is ready once no upload needs an older key and those are destroyed.
    """
    kind_in("DataKey", tenant.project)
    write = centre.secrets.new_data_key(centre.store.everything(), tenant.project)
    tenant.scope.write([write])
    return tenant.scope.get("DataKey", write.name).to_dict()
