"""The kinds of personal data, and what a finding is."""

from __future__ import annotations

from typing import NamedTuple

KINDS = (
    *("email", "ip", "phone", "identity_card", "bank_card", "credit_code", "passport", "plate", "secret"),
    *("name", "address"),
)
"""Every kind, in the order of the columns `pii_<kind>`."""

FIRST = (
    *("secret", "email", "identity_card", "credit_code", "bank_card", "passport", "phone", "ip", "plate"),
    *("address", "name"),
)
"""Which kind wins where findings overlap."""

MARKS = {kind: f"[{kind.upper()}]" for kind in KINDS}
"""What `mask` writes."""


class Span(NamedTuple):
    """Characters (or, where a function says so, bytes) `start` up to `stop` are of `kind`."""

    start: int
    stop: int
    kind: str
