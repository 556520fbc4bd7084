"""API keys: made once, shown once, kept as a hash.

A key is `sk-atoll-` and 40 characters of base 62 (238 bits): high entropy, so a plain SHA-256 is a safe store
and quick enough for every request.
"""

from __future__ import annotations

import hashlib
import secrets
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atoll.core.resources import Resource

PREFIX = "sk-atoll-"
_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a request comes from."""

    key_id: str
    project: str
    role: str

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"


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
