"""How quickly the ledger lends and enters: `python tests/bench/ledger.py [FOLDER]`, SQLite in FOLDER and PostgreSQL.

One caller, one ask or one batch a transaction, every one durable on SQLite; the tests' PostgreSQL does not sync.
"""

from __future__ import annotations

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


def measure(url: str) -> None:
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

    print(f"{url.partition(':')[0]}: {rate(GRANTS, lambda: lease(10_000)):.0f} grants/s,", end=" ")
    print(f"{rate(GRANTS, lambda: lease(0)):.0f} asks/s without a grant,", end=" ")
    for base, size in ((0, 1000), (ROWS, 100)):
        batches = [[record(base + n + i, held[0]) for i in range(1, size + 1)] for n in range(0, ROWS, size)]

        def enter(batches: list[list[dict[str, Any]]] = batches) -> None:
            for batch in batches:
                ledger.enter("g", batch)

        print(f"{rate(ROWS, enter):.0f} records/s in batches of {size}", end="; ")
    assert ledger.check() == []
    print("the book balances")
    database.close()


def main(folder: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        measure(f"sqlite:///{place}/atoll.db")
    if (binaries := postgres.binaries()) is not None:
        cluster = postgres.Cluster(binaries)
        try:
            measure(cluster.make())
        finally:
            cluster.stop()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
