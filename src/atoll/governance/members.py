"""Which projects a key may act in, as what, and until when: from the keys, their users and the users' memberships.

A key without a user has its own role in its own project. A person's key has the person's role in every project the
person is a member of, never above the key's own role; so a membership that ends ends there for all keys of the
person. Keys of role admin go everywhere, keys of role system (agents, gateways) act in no project. A key charged to
another may do no more and lasts no longer than that one, or than what that one was rotated to.
Pure over what was read; knows nothing of budgets, nor of who is asking.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from atoll.core.resources import SYSTEM_PROJECT, Resource
from atoll.core.store import Scope
from atoll.governance.keys import Identity, calls_models, user_of, within
from atoll.governance.resources import ApiKeySpec

OVER = 0.0
"""The end, in Unix time, of a key that is refused already."""

_ABSENT = {name: field.default for name, field in ApiKeySpec.model_fields.items() if not field.is_required()}
_CHAIN_MAX = 16


@dataclass(frozen=True, slots=True)
class People:
    """Living projects, users who are not disabled, and roles by user and project."""

    projects: tuple[str, ...]
    users: frozenset[str]
    roles: Mapping[str, Mapping[str, str]]


def people_of(projects: Iterable[Resource], users: Iterable[Resource], memberships: Iterable[Resource]) -> People:
    """The people in these resources; what is being deleted counts no more."""
    living = tuple(sorted(p.name for p in projects if not p.is_deleting))
    roles: dict[str, dict[str, str]] = {}
    for membership in memberships:
        if membership.project in living and not membership.is_deleting:
            roles.setdefault(membership.name, {})[membership.project] = membership.spec["role"]
    enabled = frozenset(u.name for u in users if not u.is_deleting and not u.spec["disabled"])
    return People(living, enabled, roles)


def key_fields(key: Resource) -> dict[str, Any]:
    """The spec of a key; fields that were not known when it was made have their defaults."""
    return _ABSENT | key.spec


class Keys:
    """All keys with all people at one moment."""

    def __init__(self, keys: Iterable[Resource], people: People) -> None:
        self.people = people
        self._by_place = {f"{key.project}/{key.name}": key for key in keys}
        self._successors: dict[str, list[Resource]] = {}
        for key in self._by_place.values():
            if replaced := key_fields(key)["replaces"]:
                self._successors.setdefault(f"{key.project}/{replaced}", []).append(key)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._by_place.values())

    def ends_at(self, key: Resource) -> float:
        """Unix time from which the key is refused: OVER when it is already, infinite when it lasts."""
        return self._ends_at(key, 0)

    def roles(self, key: Resource) -> dict[str, str]:
        """The key's role in each project it may act in; empty for keys of role system."""
        payer = self.payer(key)
        if payer is not None and payer is not key:
            most = self.roles(payer)
            return _bounded({p: (role, most[p]) for p, role in self._own_roles(key).items() if p in most})
        return self._own_roles(key)

    def identity(self, key: Resource) -> Identity:
        """Who holds `key`."""
        spec = key_fields(key)
        addresses = None if spec["addresses"] is None else tuple(spec["addresses"])
        roles = self.roles(key) if spec["user"] and spec["role"] not in ("admin", "system") else {}
        return Identity(key.name, key.project, spec["role"], spec["user"], roles, addresses)

    def payer(self, key: Resource) -> Resource | None:
        """The key whose usage this key's is: itself, unless it is charged to another."""
        place = key_fields(key)["charged_to"]
        return self._by_place.get(place) if place else key

    def lineage(self, key: Resource) -> tuple[str, ...]:
        """Ids of the key and of those it was rotated from, newest first.

        A budget of any of them holds for it: rotation renews a secret, not an allowance.
        """
        found = [key.name]
        before = self._by_place.get(f"{key.project}/{key_fields(key)['replaces']}")
        while before is not None and before.name not in found:
            found.append(before.name)
            before = self._by_place.get(f"{key.project}/{key_fields(before)['replaces']}")
        return tuple(found)

    def _own_roles(self, key: Resource) -> dict[str, str]:
        own, user = key.spec["role"], user_of(key)
        if own == "system":
            return {}
        if own == "admin":
            return dict.fromkeys(self.people.projects, "admin")
        if not user:
            return {key.project: own} if key.project in self.people.projects and key.project != SYSTEM_PROJECT else {}
        return _bounded({p: (role, own) for p, role in self.people.roles.get(user, {}).items()})

    def _ends_at(self, key: Resource, depth: int) -> float:
        spec = key_fields(key)
        is_refused = spec["revoked"] or key.is_deleting or (spec["user"] and spec["user"] not in self.people.users)
        if is_refused or depth > _CHAIN_MAX:
            return OVER
        own = math.inf if spec["expires_at"] is None else float(spec["expires_at"])
        if not spec["charged_to"]:
            return own
        payer = self._by_place.get(spec["charged_to"])
        return min(own, self._pays_until(payer, depth + 1)) if payer is not None else OVER

    def _pays_until(self, payer: Resource, depth: int) -> float:
        """As long as the payer or what it was rotated to; a payer that was revoked pays no more."""
        if key_fields(payer)["revoked"] or depth > _CHAIN_MAX:
            return OVER
        successors = self._successors.get(f"{payer.project}/{payer.name}", [])
        return max([self._ends_at(payer, depth), *(self._pays_until(key, depth + 1) for key in successors)])


def _bounded(roles: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Each role within its bound; projects in which nothing is left are not named."""
    left = {project: within(role, bound) for project, (role, bound) in roles.items()}
    return {project: role for project, role in left.items() if role}


def read_keys(scope: Scope) -> Keys:
    """All keys and people of the store; `scope` must see everything."""
    found = (scope.find_all(kind) for kind in ("Project", "User", "Membership"))
    return Keys(scope.find_all("ApiKey"), people_of(*found))


def key_entries(scope: Scope, now: float) -> dict[str, dict[str, Any]]:
    """What gateways know of every key usable at Unix time `now`, by the key's SHA-256; `scope` must see everything.

    "id" is the key its usage is charged to. "projects" are those it may call models in; "project" is the one meant when
    none is named. Keys that may do so nowhere are left out, so gateways refuse them: a viewer reads, and to call a
    model is to spend. "lineage" is as `Keys.lineage` of the key that is charged.
    """
    keys = read_keys(scope)
    usable = ((key, keys.ends_at(key)) for key in keys)
    acting = ((key, ends_at, _acts_in(keys.roles(key))) for key, ends_at in usable if ends_at > now)
    return {key.spec["sha256"]: _entry(keys, key, ends_at, projects) for key, ends_at, projects in acting if projects}


def _acts_in(roles: Mapping[str, str]) -> list[str]:
    return sorted(project for project, role in roles.items() if calls_models(role))


def _entry(keys: Keys, key: Resource, ends_at: float, projects: list[str]) -> dict[str, Any]:
    spec, payer = key_fields(key), keys.payer(key) or key
    return {
        "id": payer.name,
        "project": key.project if key.project in projects else projects[0],
        "projects": projects,
        "name": spec["description"],
        "lineage": list(keys.lineage(payer)),
        "expires_at": None if ends_at == math.inf else ends_at,
        **{name: spec[name] for name in ("role", "user", "models", "addresses", "limits", "priority")},
    }
