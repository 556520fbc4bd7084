"""Data-Juicer's MinHash signatures of a file of JSON lines; run by the Python of its own environment.

    python juicer_minhash.py FILE (space|character)

Prints one JSON object with the CPU seconds its operator takes for all texts.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from data_juicer.ops.deduplicator.document_minhash_deduplicator import DocumentMinhashDeduplicator


def main(path: str, tokenization: str) -> None:
    operator = DocumentMinhashDeduplicator(tokenization=tokenization, window_size=5, num_permutations=112)
    samples = [{"text": json.loads(line)["text"]} for line in Path(path).read_text().splitlines()]
    operator.compute_hash(dict(samples[0]))
    started = time.process_time()
    for sample in samples:
        operator.compute_hash(sample)
    sys.stdout.write("\n" + json.dumps({"signature_cpu_s": time.process_time() - started}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
