"""Every error Atoll raises on purpose.

    AtollError
    ├── Invalid              400  a value is wrong; `field` says which
    ├── Unauthorized         401  no key, or a wrong one
    ├── Forbidden            403  the key may not do this
    ├── NotFound             404  no such thing; the hint names the nearest
    ├── Conflict             409  it changed meanwhile, or exists already
    │   └── Fenced           409  a newer holder took over; stop
    ├── TooLarge             413  over a stated limit
    ├── CapacityError        422  it does not fit; the message holds both numbers
    ├── RateLimited          429  slow down; `retry_after_s`
    ├── IntegrityError       500  bytes are not what their checksum says
    ├── ResourceExhausted    507  disk full or the like
    └── Unavailable          503  try again; `retry_after_s`

A message names the thing and the value; the hint names the way out.
"""

from __future__ import annotations

from typing import Any


class AtollError(Exception):
    """Base of all: `message` for people, `code` for programs, `hint` for the way out."""

    code = "internal"
    http_status = 500

    def __init__(self, message: str, *, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def to_dict(self) -> dict[str, Any]:
        """The wire form, as the API and task results carry it."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "details": self.details}


class Invalid(AtollError):
    """A value that cannot be accepted; `field` is its dotted path."""

    code = "invalid"
    http_status = 400

    def __init__(self, message: str, *, field: str = "", hint: str = "", **details: Any) -> None:
        super().__init__(message, hint=hint, field=field, **details)
        self.field = field


class Unauthorized(AtollError):
    code = "unauthorized"
    http_status = 401


class Forbidden(AtollError):
    code = "forbidden"
    http_status = 403


class NotFound(AtollError):
    code = "not_found"
    http_status = 404


class Conflict(AtollError):
    code = "conflict"
    http_status = 409


class Fenced(Conflict):
    code = "fenced"


class TooLarge(AtollError):
    code = "too_large"
    http_status = 413


class CapacityError(AtollError):
    code = "capacity"
    http_status = 422


class _Later(AtollError):
    """Something that may succeed when tried again after `retry_after_s` seconds."""

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float = 1.0, **details: Any) -> None:
        super().__init__(message, hint=hint, retry_after_s=retry_after_s, **details)
        self.retry_after_s = retry_after_s


class RateLimited(_Later):
    code = "rate_limited"
    http_status = 429


class Unavailable(_Later):
    code = "unavailable"
    http_status = 503


class IntegrityError(AtollError):
    code = "integrity"
    http_status = 500


class ResourceExhausted(AtollError):
    code = "exhausted"
    http_status = 507


def error_from_dict(data: dict[str, Any]) -> AtollError:
    """The error a `to_dict` came from; an unknown code becomes a plain AtollError."""
    kinds: dict[str, type[AtollError]] = {k.code: k for k in _descendants(AtollError)}
    kind = kinds.get(data.get("code", ""), AtollError)
    details = {k: v for k, v in (data.get("details") or {}).items() if k not in ("self", "message", "hint")}
    return kind(data.get("message", "unknown error"), hint=data.get("hint", ""), **details)


def _descendants(kind: type[AtollError]) -> list[type[AtollError]]:
    direct = [k for k in kind.__subclasses__() if "code" in vars(k)]
    nested = [d for k in kind.__subclasses__() for d in _descendants(k)]
    return direct + nested
