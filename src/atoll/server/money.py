"""Routes of money: statements, balances, top-ups, vouchers, and what is known of one request."""

from __future__ import annotations

import time
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import Field

from atoll.core.errors import Forbidden, NotFound
from atoll.core.store import Scope
from atoll.governance.budgets import period_at
from atoll.governance.keys import Identity
from atoll.governance.statements import Rate
from atoll.governance.vouchers import amount_from
from atoll.server.access import CentreOf, Identified, Reader, Tenant, Writer
from atoll.server.api import Body

router = APIRouter(prefix="/api/v1")

Unit = Literal["tokens", "money", "accelerator_hours"]
YEAR_S = 366 * 86_400.0
VOUCHERS_MAX = 1000
_TYPES = {"csv": "text/csv; charset=utf-8", "html": "text/html; charset=utf-8"}
_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


class NewTopUp(Body):
    """What to add to a budget; the same id again adds nothing."""

    unit: Unit
    amount: float = Field(gt=0, allow_inf_nan=False)
    id: str
    note: str = Field("", max_length=500)


class NewVouchers(Body):
    """Vouchers to make; each code is redeemed once."""

    unit: Unit
    amount: float = Field(gt=0, allow_inf_nan=False)
    currency: str = Field("EUR", pattern="^[A-Z]{3}$")
    description: str = Field("", max_length=500)
    expires_in_s: float | None = Field(None, gt=0, le=100 * YEAR_S)
    count: int = Field(1, ge=1, le=VOUCHERS_MAX)


class Code(Body):
    """A voucher's code."""

    code: str = Field(max_length=200)


@router.get("/projects/{project}/statement", response_model=None)
def statement(
    centre: CentreOf, tenant: Reader, month: str = "", format: Literal["json", "csv", "html"] = "json"
) -> Response | dict[str, Any]:
    """What the project used in a month (2026-11; empty: this one), what it cost and what is left."""
    now = centre.clock.now()
    wanted = month or period_at("month", now)[0]
    rates, names = rates_in(tenant.scope)
    made = centre.statements.make(tenant.project, wanted, now=now, rates=rates, names=names)
    if format == "json":
        return made.to_dict()
    text = made.to_csv() if format == "csv" else made.to_html()
    name = f'inline; filename="{tenant.project}-{wanted}.{format}"'
    return Response(text, media_type=_TYPES[format], headers={"Content-Disposition": name, **_HEADERS})


@router.get("/projects/{project}/balances")
def balances(centre: CentreOf, tenant: Reader) -> dict[str, Any]:
    """What each budget of the project has, holds and spent in its present period, to the moment."""
    now = centre.clock.now()
    found = []
    for budget in tenant.scope.find_all("Budget"):
        centre.ledger.tend(budget.uid)
        label, ends_at = period_at(budget.spec["period"], now)
        kept = {"key": budget.spec["key"], "ends_at": ends_at}
        found += [balance.to_dict() | kept for balance in centre.ledger.balances(budget.uid, label)]
    return {"balances": found}


@router.post("/projects/{project}/budgets/{name}/top-ups")
def top_up(centre: CentreOf, tenant: Writer, name: str, wanted: NewTopUp) -> dict[str, Any]:
    """Add to a budget's present period. Administrators only."""
    _check_admin(tenant.identity, "top up budgets")
    unit, amount = amount_from(wanted.unit, wanted.amount)
    budget = tenant.scope.get("Budget", name)
    made = centre.payments.top_up(budget, unit, amount, id=wanted.id, actor=_actor(tenant), note=wanted.note)
    return made.to_dict()


@router.get("/projects/{project}/top-ups")
def top_ups(centre: CentreOf, tenant: Reader, since: float = 0.0, until: float = 1e12) -> dict[str, Any]:
    """What was added to the project's budgets in [since, until), Unix seconds."""
    return {"top_ups": [made.to_dict() for made in centre.payments.top_ups(tenant.project, since, until)]}


@router.post("/projects/{project}/budgets/{name}/redeem")
def redeem(centre: CentreOf, tenant: Writer, name: str, wanted: Code) -> dict[str, Any]:
    """Put a voucher into a budget; whoever may write in the project and has the code."""
    budget = tenant.scope.get("Budget", name)
    return centre.payments.redeem(wanted.code, budget, actor=_actor(tenant)).to_dict()


@router.post("/vouchers")
def make_vouchers(centre: CentreOf, identity: Identified, wanted: NewVouchers) -> dict[str, Any]:
    """Make vouchers; their codes are in this answer and nowhere else. Administrators only."""
    _check_admin(identity, "make vouchers")
    unit, amount = amount_from(wanted.unit, wanted.amount)
    expires_at = None if wanted.expires_in_s is None else time.time() + wanted.expires_in_s
    made = [
        centre.payments.make_voucher(
            unit,
            amount,
            currency=wanted.currency,
            description=wanted.description,
            expires_at=expires_at,
            actor=identity.key_id,
        )
        for _ in range(wanted.count)
    ]
    return {"vouchers": [{"id": number, "code": code} for number, code in made]}


@router.get("/vouchers")
def vouchers(centre: CentreOf, identity: Identified) -> dict[str, Any]:
    """All vouchers, newest first, without their codes. Administrators only."""
    _check_admin(identity, "see vouchers")
    return {"vouchers": centre.payments.vouchers()}


@router.delete("/vouchers/{number}")
def cancel_voucher(centre: CentreOf, identity: Identified, number: str) -> dict[str, Any]:
    """Make a voucher that was not redeemed worthless. Administrators only."""
    _check_admin(identity, "cancel vouchers")
    centre.payments.cancel(number)
    return {"deleted": True}


@router.get("/projects/{project}/requests/{request_id:path}")
def request(centre: CentreOf, tenant: Reader, request_id: str) -> dict[str, Any]:
    """What is known of a request: tokens, cost, replica, waiting, and why it went where it went."""
    found = centre.ledger.requests(tenant.project, request_id)
    if not found:
        raise NotFound(
            f"no request {request_id!r} is on record in project {tenant.project!r}",
            hint="the id is in the answer's x-request-id; a record comes within seconds of the answer's end",
        )
    return {"requests": [_request(row) for row in found]}


@router.get("/gateways")
def gateways(centre: CentreOf, identity: Identified) -> dict[str, Any]:
    """Every gateway journal the ledger has heard of. Administrators only."""
    _check_admin(identity, "see gateways")
    known = centre.ledger.gateways()
    shown = [{"source": g.source, "entered": g.entered, "seen_at": g.seen_at, "slices": g.slices} for g in known]
    return {"gateways": shown}


@router.post("/gateways/{source:path}/forget")
def forget(centre: CentreOf, identity: Identified, source: str) -> dict[str, Any]:
    """Give up a gateway that will not come back: what it held of budgets is available again. Administrators only."""
    _check_admin(identity, "forget gateways")
    if all(gateway.source != source for gateway in centre.ledger.gateways()):
        raise NotFound(f"there is no gateway {source!r}", hint="see: atoll gateways list")
    return {"closed": centre.ledger.forget(source, identity.key_id)}


@router.get("/ledger")
def ledger(centre: CentreOf, identity: Identified, limit: int = 20) -> dict[str, Any]:
    """Whether the book balances, and records that could not be entered. Administrators only."""
    _check_admin(identity, "see the ledger")
    refused = centre.ledger.refused(max(0, min(limit, 1000)))
    return {"wrong": centre.ledger.check(), "refused": centre.ledger.count_refused(), "records": refused}


def rates_in(scope: Scope) -> tuple[dict[str, Rate], dict[str, str]]:
    """Prices of accelerator-hours by model or deployment uid, and names of deployments by uid."""
    rates: dict[str, Rate] = {}
    for price in scope.find_all("Price"):
        rates[price.spec["model"]] = _rate(price.spec)
    names = {}
    for deployment in scope.find_all("Deployment"):
        names[deployment.uid] = deployment.name
        if deployment.spec.get("price"):
            rates[deployment.uid] = _rate(deployment.spec["price"])
    return rates, names


def _rate(fields: dict[str, Any]) -> Rate:
    return Rate(fields.get("per_accelerator_hour") or 0.0, fields["currency"])


def _request(row: dict[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in row.items() if name not in ("cost_micros", "end_user", "slices")}
    return {**shown, "cost": row["cost_micros"] / 1e6, "user": row["end_user"] or ""}


def _actor(tenant: Tenant) -> str:
    return tenant.scope.actor


def _check_admin(identity: Identity, what: str) -> None:
    if not identity.is_admin:
        raise Forbidden(f"only administrators {what}", hint="use an admin key")
