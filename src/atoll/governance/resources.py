"""Tenancy: projects, users, memberships, API keys, secrets, budgets and prices."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Literal

from pydantic import Field, field_validator

from atoll.core.resources import KINDS, Asker, Fields, Kind, Model, Resource, Spec, Status, World
from atoll.governance.keys import Identity

Role = Literal["admin", "owner", "member", "viewer", "caller", "system"]
MemberRole = Literal["owner", "member", "viewer"]
Period = Literal["total", "day", "month"]
CURRENCY = "^[A-Z]{3}$"
FIGURE_MAX = 1e9
"""The most money, or accelerator-hours, of one budget or top-up; their smallest parts then still count exactly."""

TOKENS_MAX = (1 << 53) - 1


class Limits(Model):
    """How fast requests may come; empty fields do not limit."""

    requests_per_minute: int | None = Field(None, ge=0, description="Requests begun in any minute.")
    tokens_per_minute: int | None = Field(None, ge=0, description="Prompt and generated tokens in any minute.")
    parallel: int | None = Field(None, ge=0, description="Requests in flight at a time.")


class ProjectSpec(Spec):
    """A tenant; everything it makes is invisible to others."""

    display_name: str = Field("", max_length=200, description="Name shown to people.")
    parent: str = Field("", description="The project above it: its budgets also hold here.")
    limits: Limits | None = Field(None, description="How fast all its keys together may ask.")
    weight: float = Field(1.0, gt=0, le=1000, description="Share of a busy model it gets beside other projects.")


class ProjectStatus(Status):
    """Projects are ready as soon as they exist."""


class UserSpec(Spec):
    """A person (or a program with a name) that may belong to several projects."""

    display_name: str = Field("", max_length=200, description="Name shown to people.")
    email: str = Field("", max_length=200, description="Where to reach the user.")
    disabled: bool = Field(False, description="Refuse all keys of the user.")


class UserStatus(Status):
    """Users are ready as soon as they exist."""


class MembershipSpec(Spec):
    """A user's role in this project; the resource's name is the user's."""

    role: MemberRole = Field(
        "member", description="owner: also members, keys and budgets; member: everything else; viewer: reads only."
    )


class MembershipStatus(Status):
    """Memberships are ready as soon as they exist."""


class ApiKeySpec(Spec):
    """A key; its secret is shown once at creation and stored only as a hash."""

    description: str = Field("", max_length=200, description="What the key is for.")
    role: Role = Field(
        "member",
        description="admin: every project; owner, member, viewer: this project; caller: calls its models, and nothing "
        "else; system: agents and gateways.",
    )
    user: str = Field("", description="The user it belongs to; the key then has the user's role in each project.")
    expires_at: float | None = Field(None, description="Unix time after which the key is refused.")
    models: list[str] | None = Field(None, description="Models the key may call; empty means all of its project.")
    addresses: list[str] | None = Field(None, description="Networks (CIDR) the key may be used from; empty means any.")
    limits: Limits | None = Field(None, description="How fast the key may ask.")
    priority: Literal["high", "normal", "batch"] = Field(
        "normal", description="Best class its requests may have; batch only uses what others leave idle."
    )
    replaces: str = Field("", description="The key this one was rotated from; that one ends after the overlap.")
    charged_to: str = Field(
        "", description="PROJECT/KEY that pays for it and is named in its usage; it ends when that key does."
    )
    sha256: str = Field(description="Hash of the whole key.", pattern="^[0-9a-f]{64}$")
    revoked: bool = Field(False, description="A revoked key is refused at once.")

    @field_validator("addresses")
    @classmethod
    def _networks(cls, addresses: list[str] | None) -> list[str] | None:
        return None if addresses is None else [str(ip_network(address, strict=False)) for address in addresses]


class ApiKeyStatus(Status):
    """Keys hold no state beyond their spec."""


class SecretSpec(Spec):
    """Named values encrypted at rest; written by `atoll secrets set`, never shown again."""

    description: str = Field("", max_length=200, description="What it is for.")
    names: list[str] = Field(default_factory=list, description="Names of the values.")
    sealed: str = Field(description="The values, encrypted with the centre's key; base64.")


class SecretStatus(Status):
    """Secrets are ready as soon as they exist."""


class BudgetSpec(Spec):
    """A hard limit for the whole project (with all projects below it) or for one key of it.

    A request is charged to every budget on its way up: its key's, its project's, the parent project's, …
    """

    description: str = Field("", max_length=200, description="What it is for.")
    key: str = Field("", description="Only for this API key; empty means the whole project and those below it.")
    period: Period = Field("total", description="When the allowance begins anew: never, each day or month (UTC).")
    tokens: int | None = Field(
        None, ge=0, le=TOKENS_MAX, description="Prompt and generated tokens; empty does not limit."
    )
    money: float | None = Field(
        None, ge=0, le=FIGURE_MAX, description="Money; empty does not limit, 0 with top-ups is prepaid."
    )
    currency: str = Field("EUR", pattern=CURRENCY, description="ISO 4217 code of `money`.")
    accelerator_hours: float | None = Field(
        None,
        ge=0,
        le=FIGURE_MAX,
        description="Accelerator-hours of the project's workloads and replicas; empty does not limit.",
    )


class BudgetFigures(Model):
    """One unit of a budget, in the unit's own measure."""

    allowed: float = Field(0, description="Allowance of the period with top-ups.")
    spent: float = Field(0, description="Settled.")
    held: float = Field(0, description="Leased to gateways or reserved for workloads, not settled yet.")
    available: float = Field(0, description="What may still be reserved.")


class BudgetStatus(Status):
    """ready, or exhausted once nothing of a unit is available."""

    period: str = Field("", description="The period these figures are of, e.g. 2026-11.")
    figures: dict[str, BudgetFigures] = Field(
        default_factory=dict, description="By unit: tokens, money, accelerator_hours."
    )


class PriceFields(Model):
    """What use of a model costs."""

    input_per_million: float = Field(
        0.0, ge=0, le=FIGURE_MAX, description="Price of a million prompt tokens that were computed."
    )
    cached_input_per_million: float | None = Field(
        None,
        ge=0,
        le=FIGURE_MAX,
        description="Price of a million prompt tokens found in the engine's cache; empty: as input.",
    )
    output_per_million: float = Field(0.0, ge=0, le=FIGURE_MAX, description="Price of a million generated tokens.")
    per_accelerator_hour: float = Field(0.0, ge=0, le=FIGURE_MAX, description="Price of one accelerator for one hour.")
    currency: str = Field("EUR", pattern=CURRENCY, description="ISO 4217 code.")


class PriceSpec(Spec, PriceFields):
    """The price of a model or of one of its versions, wherever this project serves it."""

    model: str = Field(description="Name of a model, or of one version of it (which goes before the model's).")


class PriceStatus(Status):
    """Prices are in force as soon as they exist."""


def _guard_budget(asker: Asker, project: str, spec: Fields | None, before: Fields | None) -> None:
    from atoll.governance.budgets import check_budget  # it knows accounts, which only the server has

    wanted = before if spec is None else spec
    assert isinstance(asker, Identity) and wanted is not None
    check_budget(asker, asker.role_in(project), wanted, before)


def _within(world: World, project: Resource) -> list[Resource]:
    """Everything of a project: keys, workloads, data, budgets. What was used stays in the ledger."""
    return world.within(project.name)


def _of_user(world: World, user: Resource) -> list[Resource]:
    """A user's keys and memberships, of all projects."""
    memberships = [found for found in world.find_all("Membership") if found.name == user.name]
    return memberships + [found for found in world.find_all("ApiKey") if found.spec["user"] == user.name]


PROJECT = KINDS.register(
    Kind(
        "Project",
        "projects",
        "A tenant: an organisation's unit whose things others cannot see.",
        ProjectSpec,
        ProjectStatus,
        scope="system",
        columns=(("DISPLAY NAME", "spec.display_name"), ("PARENT", "spec.parent")),
        dependents=_within,
        writers="admin",
    )
)
USER = KINDS.register(
    Kind(
        "User",
        "users",
        "A person or program that may belong to several projects.",
        UserSpec,
        UserStatus,
        scope="system",
        columns=(("DISPLAY NAME", "spec.display_name"), ("EMAIL", "spec.email"), ("DISABLED", "spec.disabled")),
        dependents=_of_user,
        writers="admin",
    )
)
MEMBERSHIP = KINDS.register(
    Kind(
        "Membership",
        "memberships",
        "A user's role in a project.",
        MembershipSpec,
        MembershipStatus,
        columns=(("ROLE", "spec.role"),),
        writers="owner",
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
SECRET = KINDS.register(
    Kind(
        "Secret",
        "secrets",
        "Values encrypted at rest, as keys of external providers; made with `atoll secrets set`.",
        SecretSpec,
        SecretStatus,
        columns=(("NAMES", "spec.names"), ("DESCRIPTION", "spec.description")),
        private=frozenset({"sealed"}),
        is_internal=True,
    )
)
BUDGET = KINDS.register(
    Kind(
        "Budget",
        "budgets",
        "A hard limit in tokens, money or accelerator-hours for a project or one of its keys.",
        BudgetSpec,
        BudgetStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("KEY", "spec.key"),
            ("PERIOD", "status.period"),
            ("REASON", "status.reason"),
        ),
        writers="owner",
        guard=_guard_budget,
    )
)
PRICE = KINDS.register(
    Kind(
        "Price",
        "prices",
        "What use of a model or of one of its versions costs.",
        PriceSpec,
        PriceStatus,
        columns=(
            ("MODEL", "spec.model"),
            ("INPUT", "spec.input_per_million"),
            ("OUTPUT", "spec.output_per_million"),
            ("CURRENCY", "spec.currency"),
        ),
        writers="owner",
    )
)
