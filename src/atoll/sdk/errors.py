"""Errors only a client meets; everything else is the server's own error, rebuilt.

Unavailable
└── Unreachable   nothing answers at the address
AtollError
└── TimedOut      it did not come about in the time given
"""

from __future__ import annotations

from atoll.core.errors import AtollError, Unavailable


class Unreachable(Unavailable):
    """Nothing answers at the address; the message names it."""

    code = "unreachable"


class TimedOut(AtollError):
    """What was waited for did not come about; the message says how things stand."""

    code = "timed_out"
    http_status = 504
