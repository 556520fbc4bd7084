"""What leaves a labelling task: an item with all that is known of it.

Labellers appear as L1, L2, … in the order they came; their names stay here. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from atoll.data.labelling.assignment import ANSWERED, FINAL, SKIPPED, STATES
from atoll.data.labelling.rows import Claim, Row

JUDGE = "adjudicator"
MAJORITY = "answers"


def pseudonym(number: int) -> str:
    """What a labeller is called outside."""
    return f"L{number}"


def export_row(row: Row, claims: Mapping[int, Claim]) -> dict[str, Any]:
    """An item as it is told: what it is, where it stands, what everybody said, and its final values if it is decided.

    {"id", "item", "state", "final", "decided_by", "comment", "agreement", "answers", "skips", "prelabel",
    "prelabel_by"}; "skips" are who left it to others, and why.
    """
    final = orjson.loads(row.final) if row.final is not None else None
    own = [claims[number] for number in sorted(claims)]
    return {
        "id": row.key,
        "item": orjson.loads(row.item),
        "state": STATES[row.state],
        "final": None if final is None else final["values"],
        "decided_by": "" if final is None else JUDGE if row.state == FINAL else MAJORITY,
        "comment": "" if final is None else final["comment"],
        "agreement": row.agreement,
        "answers": [_answer(claim) for claim in own if claim.state == ANSWERED],
        "skips": [_skip(claim) for claim in own if claim.state == SKIPPED],
        "prelabel": orjson.loads(row.prelabel) if row.prelabel is not None else None,
        "prelabel_by": row.prelabel_by or "",
    }


def _answer(claim: Claim) -> dict[str, Any]:
    told = {"labeller": pseudonym(claim.labeller), "values": claim.values, "comment": claim.comment}
    return told | {"seconds": claim.seconds, "at": claim.at}


def _skip(claim: Claim) -> dict[str, Any]:
    return {"labeller": pseudonym(claim.labeller), "comment": claim.comment, "at": claim.at}
