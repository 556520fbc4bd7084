"""API keys: made once, shown once, kept as a hash; and the identity a key gives to whoever holds it.

A key is `sk-atoll-` and 40 characters of base 62 (238 bits): high entropy, so a plain SHA-256 is a safe store
and quick enough for every request.
"""

from __future__ import annotations

import hashlib
import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atoll.core.resources import Resource

RANKS = ("", "caller", "viewer", "member", "owner", "admin")
"""Roles in rising order; each may do all that those before it may, but for calling models: a viewer may not, for that
spends, and a caller may nothing else. "" is no role at all."""

PREFIX = "sk-atoll-"
_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a request comes from: a key, and the user it belongs to, if any.

    `role` and `project` are the key's own. `roles` are the user's by project, none above the key's own role.
    """

    key_id: str
    project: str
    role: str
    user: str = ""
    roles: Mapping[str, str] = field(default_factory=dict, hash=False)
    addresses: tuple[str, ...] | None = None

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    def role_in(self, project: str) -> str:
        """What it is in `project`: one of RANKS."""
        if self.is_admin:
            return "admin"
        if self.role == "system":
            return ""
        if self.user:
            return self.roles.get(project, "")
        return self.role if project == self.project else ""

    def projects(self) -> list[str]:
        """The projects it is something in, its key's own first; not those an administrator merely may enter."""
        own = [self.project] if self.role_in(self.project) else []
        return own + sorted(p for p in self.roles if p != self.project)

    @property
    def home(self) -> str:
        """The project meant when none is named: the key's own, or the first its user is in when that is not one."""
        acting = [project for project in self.projects() if calls_models(self.role_in(project))]
        return acting[0] if acting else self.project


def new_key() -> str:
    """A fresh secret."""
    return PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(40))


def hash_of(key: str) -> str:
    """The SHA-256 a key is known by, 64 hex digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_valid(key: Resource, now: float) -> bool:
    """Whether the key may still be used at Unix time `now`."""
    expires_at = key.spec["expires_at"]
    return not key.spec["revoked"] and not key.is_deleting and (expires_at is None or expires_at > now)


def user_of(key: Resource) -> str:
    """The user the key belongs to, or ""; keys made before there were users have none."""
    return str(key.spec.get("user", ""))


def rank(role: str) -> int:
    """Where a role stands among RANKS; a role that is not one of them ranks as none."""
    return RANKS.index(role) if role in RANKS else 0


def calls_models(role: str) -> bool:
    """Whether the role may call models."""
    return role == "caller" or rank(role) >= rank("member")


def within(role: str, bound: str) -> str:
    """What is left of a role that may do no more than another: a viewer's caller may nothing."""
    lower = min(role, bound, key=rank)
    return "" if lower == "caller" and "viewer" in (role, bound) else lower


def is_from(addresses: Sequence[str] | None, address: str) -> bool:
    """Whether a key that may be used from the networks `addresses` (None: any) may be used from `address`.

    An IPv4 address that arrived on an IPv6 socket counts as what it is; what is no address is in no network.
    """
    if addresses is None:
        return True
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found in ip_network(network) for network in addresses)
