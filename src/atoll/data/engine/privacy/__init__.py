"""Personal data in texts: found, counted, and acted upon.

A compiled scan over UTF-8 lets few places through; each is verified by check digits, ranges, dictionaries and what
stands beside it. Names and addresses without such context are not found.
"""

from atoll.data.engine.privacy.actions import ACTIONS, Actions, Applied, Dropped
from atoll.data.engine.privacy.find import Finder, disjoint
from atoll.data.engine.privacy.findings import COLUMNS, Findings, by_text, count, counted, found_in
from atoll.data.engine.privacy.kinds import KINDS, MARKS, Span

__all__ = [
    "ACTIONS",
    "COLUMNS",
    "KINDS",
    "MARKS",
    "Actions",
    "Applied",
    "Dropped",
    "Finder",
    "Findings",
    "Span",
    "by_text",
    "count",
    "counted",
    "disjoint",
    "found_in",
]
