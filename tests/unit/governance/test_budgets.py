"""The tree of budgets: which ones count, who sets them, and what their status says."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.core.clock import VirtualClock
from atoll.core.errors import Forbidden, Invalid
from atoll.core.reconcile import Writer
from atoll.core.resources import SYSTEM_PROJECT, Key
from atoll.core.store import Create, Store
from atoll.governance.budgets import amount_of, check_budget, figure_of, month_bounds, path_of
from atoll.governance.controllers import LOOK_S, BudgetController
from atoll.governance.keys import Identity
from atoll.governance.ledger import Ledger
from atoll.governance.resources import BUDGET, PROJECT
from atoll.governance.slices import Ask, Lease


class Tree:
    def __init__(self, store: Store) -> None:
        self.scope = store.everything("test")

    def project(self, name: str, parent: str = "") -> None:
        self.scope.write([Create("Project", SYSTEM_PROJECT, name, PROJECT.parse_spec({"parent": parent}))])

    def budget(self, project: str, name: str, **spec: Any) -> str:
        self.scope.write([Create("Budget", project, name, BUDGET.parse_spec(spec))])
        return self.scope.get("Budget", name, project).uid

    def path(self, project: str, key_id: str = "") -> list[str]:
        names = {b.uid: f"{b.project}/{b.name}" for b in self.scope.find_all("Budget")}
        return [names[uid] for uid in path_of(self.scope, project, key_id)]


@pytest.fixture
def tree(sqlite_store: Store) -> Tree:
    return Tree(sqlite_store)


def test_a_request_is_charged_to_its_keys_its_projects_and_all_above(tree: Tree) -> None:
    tree.project("company")
    tree.project("unit", "company")
    tree.project("team", "unit")
    for project in ("company", "team", "unit"):
        tree.budget(project, "all", tokens=1)
    tree.budget("team", "of-k1", tokens=1, key="k1")
    tree.budget("team", "daily", tokens=1, period="day")
    tree.budget("company", "k1-everywhere", tokens=1, key="k1")
    everybody = ["team/all", "team/daily", "unit/all", "company/all"]
    assert tree.path("team") == everybody
    assert tree.path("team", "k2") == everybody
    assert tree.path("team", "k1") == ["team/of-k1", "company/k1-everywhere", *everybody]
    assert tree.path("company") == ["company/all"]
    assert tree.path("nowhere") == []


def test_a_circle_of_parents_is_cut_where_it_would_begin_again(tree: Tree) -> None:
    tree.project("a", "b")
    tree.project("b", "a")
    tree.budget("a", "x", tokens=1)
    tree.budget("b", "x", tokens=1)
    assert tree.path("a") == ["a/x", "b/x"]
    assert tree.path("b") == ["b/x", "a/x"]


ADMIN, OWNER = Identity("k", "red", "admin"), Identity("k", "red", "owner")
WHOLE = {"key": "", "currency": "EUR"}
KEYED = {"key": "k9", "currency": "EUR"}


@pytest.mark.parametrize(
    ("identity", "role", "spec", "before", "error"),
    [
        (ADMIN, "admin", WHOLE, None, None),
        (OWNER, "owner", KEYED, None, None),
        (OWNER, "owner", WHOLE, None, Forbidden),
        (OWNER, "owner", KEYED, WHOLE, Forbidden),
        (OWNER, "owner", WHOLE, KEYED, Forbidden),
        (OWNER, "member", KEYED, None, Forbidden),
        (ADMIN, "admin", KEYED | {"currency": "USD"}, KEYED, Invalid),
    ],
)
def test_nobody_raises_their_own_limit(
    identity: Identity, role: str, spec: dict[str, Any], before: dict[str, Any] | None, error: type[Exception] | None
) -> None:
    if error is None:
        check_budget(identity, role, spec, before)
    else:
        with pytest.raises(error):
            check_budget(identity, role, spec, before)


def test_amounts_are_whole_and_figures_are_as_people_read_them() -> None:
    assert [amount_of(unit, 1.5) for unit in ("tokens", "money", "accelerator_ms")] == [1, 1_500_000, 5_400_000]
    assert [figure_of("money", 1_500_000), figure_of("accelerator_ms", 5_400_000)] == [1.5, 1.5]


def test_a_month_is_named_or_refused() -> None:
    assert month_bounds("2026-12") == (1_796_083_200.0, 1_798_761_600.0)
    for month in ("", "2026", "2026-13", "November"):
        with pytest.raises(Invalid, match="month cannot be"):
            month_bounds(month)


def test_the_status_follows_the_accounts_and_costs_nothing_at_rest(sqlite_store: Store, clock: VirtualClock) -> None:
    tree, ledger = Tree(sqlite_store), Ledger(sqlite_store.database, clock)
    controller = BudgetController(ledger)
    world = Writer(sqlite_store, clock, "Budget", "budgets", None)
    key, uid = Key("Budget", "red", "b"), tree.budget("red", "b", tokens=10)
    assert controller.reconcile(key, world) is None
    head = sqlite_store.head()
    assert controller.reconcile(key, world) is None
    assert sqlite_store.head() == head
    (leased,) = ledger.lease(Lease("g", "i", 0, [Ask(uid, "tokens", want=10)]))
    assert controller.reconcile(key, world) == LOOK_S
    assert tree.scope.get("Budget", "b", "red").status["figures"]["tokens"]["held"] == 10
    assert tree.scope.get("Budget", "b", "red").phase == "ready"
    ledger.forget("g")
    assert controller.reconcile(key, world) is None
    daily = Key("Budget", "red", "daily")
    tree.budget("red", "daily", tokens=0, period="day")
    assert 0 < (controller.reconcile(daily, world) or 0) <= 86_400
    assert tree.scope.get("Budget", "daily", "red").phase == "exhausted"
    assert leased.granted == 10
