"""Anonymous memory that a process keeps for language identification once it has seen a batch of 16 MB.

    python language_memory.py TEXTS

The other kernels, numba and Arrow are loaded before, as in a worker. Linux only.
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import sys
from pathlib import Path

import pyarrow as pa

from atoll.data.engine.annotate.table import Wanted, annotate

BATCH_BYTES = 16 << 20


def anonymous_mb() -> float:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free is not held
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    assert found
    return int(found[1]) / 1024


def batch(path: Path) -> pa.StringArray:
    """The texts of a file, again and again."""
    texts, size = [json.loads(line)["text"] for line in path.open(encoding="utf-8")], 0
    chosen = []
    while size < BATCH_BYTES:
        chosen.append(texts[len(chosen) % len(texts)])
        size += len(chosen[-1].encode())
    return pa.array(chosen, pa.string())


def main() -> None:
    texts = batch(Path(sys.argv[1]))
    annotate(texts.slice(0, 10), Wanted(permutations=8, words=5, cjk_characters=5, lines=False))
    before = anonymous_mb()
    from atoll.data.engine.language.identify import identify

    kept = [identify(texts) for _ in range(2)]
    print(json.dumps({"held_mb": anonymous_mb() - before, "texts": len(kept[0][0])}))


if __name__ == "__main__":
    main()
