"""What labelling costs at a million items: adding them, handing one out, taking an answer, and knowing how it stands.

CPU seconds of this process over SQLite on disk. Every tenth of the way three labellers ask, answer and agree mostly;
one of them has had far more items than the others, which is where a search could become slow.
"""

from __future__ import annotations

import json
import os
import platform as machine
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from atoll.core.clock import SystemClock
from atoll.core.database import Database
from atoll.data.labelling import tallies
from atoll.data.labelling.assignment import Terms
from atoll.data.labelling.entries import ITEMS_AT_ONCE
from atoll.data.labelling.schema import AnyField, Item
from atoll.data.labelling.store import Labels

ITEMS = int(os.environ.get("ATOLL_LABEL_ITEMS", "1000000"))
ALONE = ITEMS // 100
ROUNDS = 300
FIELDS = TypeAdapter(list[AnyField]).validate_python(
    [{"name": "topic", "type": "class", "options": ["health", "law", "sport", "other"]}]
)
TERMS = Terms(FIELDS, 2, 0.3, 3)
TEXT = "Opening hours of the registry are from nine to noon; bring a document that shows who you are. " * 4


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU milliseconds, and what came of it."""
    began = time.process_time()
    result = work()
    return (time.process_time() - began) * 1e3, result


def fill(labels: Labels) -> float:
    """CPU seconds to add all items."""
    spent_ms = 0.0
    for at in range(0, ITEMS, ITEMS_AT_ONCE):
        items = [Item(key=f"doc-{n:07d}", text=f"{n} {TEXT}", priority=n % 3) for n in range(at, at + ITEMS_AT_ONCE)]
        spent_ms += timed(lambda items=items: labels.append("task", TERMS, items))[0]
    return spent_ms / 1e3


def label(labels: Labels, who: str, rounds: int, count: int = 1) -> tuple[list[float], list[float]]:
    """CPU milliseconds of every `next` and of every answer."""
    asked, answered = [], []
    for _ in range(rounds):
        spent, handed = timed(lambda: labels.next("task", TERMS, who, count, 600.0))
        asked.append(spent)
        for item in handed:
            values = {"topic": FIELDS[0].options[item.row.seq % (3 if who == "user:cy" else 4)]}
            key = item.row.key
            answered.append(timed(lambda key=key, values=values: labels.answer("task", TERMS, who, key, values))[0])
    return asked, answered


def p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def measure(root: Path) -> dict[str, float]:
    database = Database(f"sqlite:///{root / 'atoll.db'}")
    database.migrate()
    labels = Labels(database, SystemClock(), "default")
    fill_s = fill(labels)
    print(f"{ITEMS} items: {fill_s:.1f} s CPU", flush=True)
    label(labels, "user:al", ALONE // 50, 50)
    rounds = [label(labels, who, ROUNDS) for who in ("user:al", "user:bo", "user:cy")]
    asked = [value for one, _ in rounds for value in one]
    answered = [value for _, one in rounds for value in one]
    status_ms = [timed(lambda: labels.counts("task"))[0] for _ in range(200)]
    agreement_ms, found = timed(lambda: tallies.people(FIELDS, labels.cells("task")))
    page_ms, _ = timed(lambda: labels.page("task", ITEMS // 2, 100))
    print(f"next {statistics.median(asked):.2f} ms, p95 {p95(asked):.2f}; answer {statistics.median(answered):.2f} ms")
    print(f"{labels.counts('task')}; {found[0]}")
    database.close()
    return {
        "items": ITEMS,
        "items_per_cpu_s": ITEMS / fill_s,
        "next_cpu_ms_p50": statistics.median(asked),
        "next_cpu_ms_p95": p95(asked),
        "answer_cpu_ms_p50": statistics.median(answered),
        "answer_cpu_ms_p95": p95(answered),
        "status_cpu_ms": statistics.median(status_ms),
        "agreement_cpu_ms": agreement_ms,
        "page_100_cpu_ms": page_ms,
        "database_mb": sum(path.stat().st_size for path in root.glob("atoll.db*")) / 1e6,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        figures = measure(Path(name))
    about = {"cores": os.cpu_count(), "arch": machine.machine(), "python": machine.python_version()}
    command = "python tests/bench/labelling.py"
    print(json.dumps({"bench": "labelling", "machine": about, "figures": figures, "rivals": {}, "command": command}))


if __name__ == "__main__":
    main()
