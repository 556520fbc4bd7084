"""kill -9 of the process that writes the ledger: what it confirmed is there, the book balances, nothing is doubled."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

from atoll.core.clock import SystemClock
from atoll.core.database import Database
from atoll.core.store import Create, Store
from atoll.governance.ledger import Ledger
from atoll.governance.resources import BUDGET
from atoll.governance.slices import Ask, Lease

KILLS = 8
BATCH = 5
WRITER = """
import sys
from atoll.core.database import Database
from atoll.governance.ledger import Ledger
from atoll.governance.slices import Ask, Lease

def record(seq, number):
    texts = dict.fromkeys(("request_id", "project", "key_id", "model", "deployment", "replica", "endpoint"), "x")
    counts = dict.fromkeys(("prompt_tokens", "completion_tokens", "cached_tokens"), 1)
    return {"seq": seq, "ts": 1.0, **texts, **counts, "status": "ok", "http_status": 200, "duration_s": 0.1,
            "slices": {str(number): 3}}

url, budget, run, seq = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
ledger, granted, number, begun = Ledger(Database(url)), 0, None, seq
while True:
    ask = Ask(budget, "tokens", number, granted, 0, 15)
    (answer,) = ledger.lease(Lease("g", run, begun, [ask]))
    number, granted = answer.slice, answer.granted
    print("writing", seq + 5, number, flush=True)
    ledger.enter("g", [record(n, number) for n in range(seq + 1, seq + 6)])
    seq += 5
    print("entered", seq, number, flush=True)
"""


def _run_and_kill(url: str, budget: str, run: int, seq: int, lines: int) -> tuple[int, int]:
    """Let the writer write `lines` lines, kill it; the last number it confirmed and the last it may have written."""
    words = [sys.executable, "-c", WRITER, url, budget, f"run-{run}", str(seq)]
    confirmed = begun = seq
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(lines):
            words = writer.stdout.readline().split()
            assert words, "the writer ended by itself"
            begun = max(begun, int(words[1]))
            confirmed = int(words[1]) if words[0] == "entered" else confirmed
        writer.kill()
        for line in writer.stdout:
            begun = max(begun, int(line.split()[1]))
            confirmed = int(line.split()[1]) if line.startswith("entered") else confirmed
    return confirmed, begun


def _check(ledger: Ledger, budget: str, confirmed: int, begun: int) -> int:
    assert ledger.check() == []
    (line,) = ledger.statement("x", by=[])
    assert confirmed <= line.requests <= begun
    assert line.requests % BATCH == 0, "a batch was entered in part"
    (balance,) = ledger.balances(budget, "total")
    assert (balance.spent, balance.overspent) == (3 * line.requests, 0)
    return line.requests


def test_a_killed_writer_leaves_whole_batches_and_a_balanced_book(sqlite_url: str, opened: Any) -> None:
    database: Database = opened(sqlite_url)
    scope = Store(database, SystemClock()).everything("test")
    scope.write([Create("Budget", "red", "b", BUDGET.parse_spec({"tokens": 1_000_000}))])
    budget = scope.get("Budget", "b", "red").uid
    ledger, rng, entered = Ledger(database), random.Random(7), 0
    for run in range(KILLS):
        confirmed, begun = _run_and_kill(sqlite_url, budget, run, entered, rng.randint(3, 40))
        entered = _check(ledger, budget, confirmed, begun)
    ledger.lease(Lease("g", "last", entered, [Ask(budget, "tokens")]))
    (balance,) = ledger.balances(budget, "total")
    assert (balance.held, balance.available) == (0, 1_000_000 - 3 * entered)
