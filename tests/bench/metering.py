"""Bench `metering`: what 100 random kills lose, double or overspend. JSON on the last line.

A real server and two real gateway workers serve a model to clients that never pause, part of them streaming, part of
them leaving early, while processes are killed with -9 at random (seeded) and started again; towards the end the budget
is made tiny. The engine is the witness: `records_sent` are the usage records in the ledger, `lost` the requests it saw
that have none, `doubled` those that have more than one; `overspent` is what was spent beyond a budget, in tokens.
"""

from __future__ import annotations

import json
import os
import platform as machine
import sys
import tempfile
from collections import Counter
from pathlib import Path

from sqlalchemy import select

sys.path.insert(0, str(Path(__file__).parents[1]))
from atoll.governance.records import usage
from fault.metering.fleet import Fleet, Load, serve_tiny
from fault.metering.test_kill_nine import balances, kill_at_random, shrink_budget
from integration.gateway.control import wait_until
from integration.gateway.engine import Engine

ROUNDS = 100
WORKERS = 2
SEED = 11
LEFT_TOKENS = 500


def requests_on_record(fleet: Fleet) -> Counter[str]:
    """How often each request stands in the ledger."""
    with fleet.ledger()._database.reading() as connection:
        return Counter(connection.execute(select(usage.c.request_id)).scalars())


def measure(folder: Path) -> dict[str, int]:
    engine = Engine().start()
    engine.event_s = 0.002
    fleet = Fleet(folder / "home", WORKERS)
    try:
        serve_tiny(fleet, engine, tokens=600_000, money=1000.0)
        load = Load(fleet, SEED)
        try:
            killed = kill_at_random(fleet, load, ROUNDS)
            wait_until(fleet.is_answering, "the server is back", 60)
            shrink_budget(fleet, LEFT_TOKENS)
            wait_until(lambda: load.refusals["insufficient_quota"] > 4, "the budget's end", 90)
        finally:
            load.stop()
        seen = {headers["x-request-id"] for headers in engine.headers}
        wait_until(lambda: seen <= set(requests_on_record(fleet)), "everything to be on record", 60)
        fleet.stop()
        counts = requests_on_record(fleet)
        tokens, _ = balances(fleet)
        return {
            "kills": sum(killed.values()),
            "records_sent": sum(counts.values()),
            "lost": len(seen - set(counts)),
            "doubled": sum(1 for count in counts.values() if count > 1),
            "overspent": round(tokens.overspent),
            "still_held": round(tokens.held),
            "refused_by_budget": load.refusals["insufficient_quota"],
        }
    finally:
        fleet.close()
        engine.stop()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder))
    line = {
        "bench": "metering",
        "machine": {"cpus": os.cpu_count(), "python": machine.python_version(), "arch": machine.machine()},
        "figures": figures,
        "rivals": {},
        "command": "python tests/bench/metering.py",
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
