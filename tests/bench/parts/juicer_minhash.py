"""Data-Juicer's MinHash signatures of a file of JSON lines; run by the Python of its own environment.

    python juicer_minhash.py FILE (space|character)

Prints one JSON object with CPU seconds for all texts: `signature_cpu_s` of its operator over a dataset of its own, in
memory, in one process, which is how Data-Juicer runs it; `bare_cpu_s` of the operator's function alone, called for one
text after the other.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import datasets
from data_juicer.core.data import NestedDataset
from data_juicer.ops.deduplicator.document_minhash_deduplicator import DocumentMinhashDeduplicator


def main(path: str, tokenization: str) -> None:
    operator = DocumentMinhashDeduplicator(tokenization=tokenization, window_size=5, num_permutations=112)
    samples = [{"text": json.loads(line)["text"]} for line in Path(path).read_text().splitlines()]
    operator.compute_hash(dict(samples[0]))
    with tempfile.TemporaryDirectory() as cache:
        datasets.config.HF_DATASETS_CACHE = Path(cache)
        dataset = NestedDataset.from_list(samples)
        dataset.select(range(1)).map(operator.compute_hash, num_proc=1)
        started_s = cpu_s()
        dataset.map(operator.compute_hash, num_proc=1)
        mapped_s = cpu_s() - started_s
    started_s = cpu_s()
    for sample in samples:
        operator.compute_hash(sample)
    result = {"signature_cpu_s": mapped_s, "bare_cpu_s": cpu_s() - started_s}
    sys.stdout.write("\n" + json.dumps(result) + "\n")


def cpu_s() -> float:
    """Processor seconds of this process and of the children it has waited for: a dataset's map has one."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    main(*sys.argv[1:])
