"""Durations and moments as people type them: 30d, 12h, 2026-05-01, 2026-05-01T12:00."""

from __future__ import annotations

import re
import time
from datetime import datetime

from atoll.core.errors import Invalid

_LENGTHS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def seconds_from(text: str, option: str) -> float:
    """The seconds in `90`, `90s`, `15m`, `12h`, `30d` or `4w`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text.strip())
    if match is None:
        raise Invalid(f"{option} cannot be {text!r}", field=option, hint="e.g. 90s, 15m, 12h, 30d, 4w", value=text)
    return float(match[1]) * _LENGTHS_S[match[2] or "s"]


def moment_from(text: str, option: str, now: float | None = None) -> float:
    """Unix time of a local date or time, or of so long ago."""
    if re.fullmatch(r"\d+(\.\d+)?[smhdw]", text.strip()):
        return (time.time() if now is None else now) - seconds_from(text, option)
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError as error:
        hint = "a date such as 2026-05-01, a time such as 2026-05-01T12:00, or so long ago: 12h, 7d"
        raise Invalid(f"{option} cannot be {text!r}", field=option, hint=hint, value=text) from error
