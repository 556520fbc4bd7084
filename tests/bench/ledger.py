"""Bench `ledger`: how quickly it lends and enters, on SQLite and PostgreSQL. JSON on the last line.

One caller, one ask or one batch a transaction, every one durable on SQLite; the tests' PostgreSQL does not sync.
"""

from __future__ import annotations

import json
import os
import platform as machine
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import postgres
from atoll.core.database import Database
from atoll.core.store import Create, Store
from atoll.governance.ledger import Ledger
from atoll.governance.resources import BUDGET
from atoll.governance.slices import Ask, Lease

GRANTS, ROWS = 400, 10_000
PRICE = {"input_per_million": 0.15, "output_per_million": 0.6, "currency": "EUR"}


def record(seq: int, number: int) -> dict[str, Any]:
    texts = dict.fromkeys(("request_id", "project", "model", "deployment", "replica"), f"r{seq}")
    counts = {"prompt_tokens": 100, "completion_tokens": 50, "cached_tokens": 10, "http_status": 200}
    said = {"endpoint": "chat", "status": "ok", "duration_s": 0.5, "price": PRICE, "note": "least outstanding"}
    return {"seq": seq, "ts": 1.0, "key_id": f"k{seq % 50}", **texts, **counts, **said, "slices": {str(number): 150}}


def rate(count: int, work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def measure(url: str) -> dict[str, float]:
    """Grants, asks and records per second on the database at `url`."""
    database = Database(url)
    database.migrate()
    ledger, scope = Ledger(database), Store(database).everything("bench")
    scope.write([Create("Budget", "red", "b", BUDGET.parse_spec({"tokens": 10**12}))])
    budget = scope.get("Budget", "b", "red").uid
    held: list[Any] = [None, 0]

    def lease(want: int) -> None:
        for _ in range(GRANTS):
            (answer,) = ledger.lease(Lease("g", "i", 0, [Ask(budget, "tokens", held[0], held[1], 0, want)]))
            held[:] = answer.slice, answer.granted

    figures = {"grants_per_s": rate(GRANTS, lambda: lease(10_000)), "idle_asks_per_s": rate(GRANTS, lambda: lease(0))}
    for base, size in ((0, 1000), (ROWS, 100)):
        batches = [[record(base + n + i, held[0]) for i in range(1, size + 1)] for n in range(0, ROWS, size)]

        def enter(batches: list[list[dict[str, Any]]] = batches) -> None:
            for batch in batches:
                ledger.enter("g", batch)

        figures[f"records_per_s_batch_{size}"] = rate(ROWS, enter)
    assert ledger.check() == [], "the book balances"
    database.close()
    return {name: round(value) for name, value in figures.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        figures = {f"sqlite_{name}": value for name, value in measure(f"sqlite:///{place}/atoll.db").items()}
    if (binaries := postgres.binaries()) is not None:
        cluster = postgres.Cluster(binaries)
        try:
            figures |= {f"postgres_{name}": value for name, value in measure(cluster.make()).items()}
        finally:
            cluster.stop()
    line = {
        "bench": "ledger",
        "machine": {"cpus": os.cpu_count(), "python": machine.python_version(), "arch": machine.machine()},
        "figures": figures,
        "rivals": {},
        "command": "python tests/bench/ledger.py",
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
