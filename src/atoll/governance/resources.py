"""Tenancy: projects and API keys."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from atoll.core.resources import KINDS, Kind, Spec, Status

Role = Literal["admin", "member", "viewer", "system"]


class ProjectSpec(Spec):
    """A tenant; everything it makes is invisible to others."""

    display_name: str = Field("", max_length=200, description="Name shown to people.")


class ProjectStatus(Status):
    """Projects are ready as soon as they exist."""


class ApiKeySpec(Spec):
    """A key; its secret is shown once at creation and stored only as a hash."""

    description: str = Field("", max_length=200, description="What the key is for.")
    role: Role = Field(
        "member",
        description="admin: every project; member: this project; viewer: reads only; system: agents and gateways.",
    )
    expires_at: float | None = Field(None, description="Unix time after which the key is refused.")
    models: list[str] | None = Field(None, description="Models the key may call; empty means all of its project.")
    sha256: str = Field(description="Hash of the whole key.", pattern="^[0-9a-f]{64}$")
    revoked: bool = Field(False, description="A revoked key is refused at once.")


class ApiKeyStatus(Status):
    """Keys hold no state beyond their spec."""


PROJECT = KINDS.register(
    Kind(
        "Project",
        "projects",
        "A tenant: an organisation's unit whose things others cannot see.",
        ProjectSpec,
        ProjectStatus,
        scope="system",
        columns=(("DISPLAY NAME", "spec.display_name"),),
    )
)
API_KEY = KINDS.register(
    Kind(
        "ApiKey",
        "apikeys",
        "A key for the API; made with `atoll keys create`.",
        ApiKeySpec,
        ApiKeyStatus,
        columns=(("ROLE", "spec.role"), ("DESCRIPTION", "spec.description"), ("REVOKED", "spec.revoked")),
        private=frozenset({"sha256"}),
        is_internal=True,
    )
)
