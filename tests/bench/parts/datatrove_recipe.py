"""datatrove's own pipeline over a folder of JSON lines; run by the Python of its own environment.

    python datatrove_recipe.py FOLDER LANGUAGE LID_MODEL

LANGUAGE: eng or cmn. Prints one JSON object: CPU seconds of the whole recipe and of the MinHash signatures alone,
and the ids that are left. The recipe is FineWeb's order: language, Gopher repetition, Gopher quality, C4, FineWeb,
MinHash (14 bands of 8), personal data.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.lid import FT176LID
from fasttext.FastText import _FastText

FORK = multiprocessing.get_context("fork")
CODES = {"eng": "en", "cmn": "zh"}


class _Local(FT176LID):
    """The language model from a file, where its own address cannot be reached."""

    def __init__(self, languages: list[str], path: str) -> None:
        super().__init__(languages)
        self.path = path

    @property
    def model(self) -> _FastText:
        if self._model is None:
            self._model = _FastText(self.path)
        return self._model


def main(folder: str, language: str, lid_model: str) -> None:
    config = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8, n_grams=5)
    with tempfile.TemporaryDirectory() as work:
        place = Path(work)
        signature_cpu_s = _cpu_s(_signatures(folder, place / "alone", config, language))
        recipe_cpu_s = _cpu_s(_filters(folder, place, language, lid_model))
        filtered = str(place / "filtered")
        recipe_cpu_s += _cpu_s(_signatures(filtered, place / "signatures", config, language))
        recipe_cpu_s += _cpu_s([MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)], tasks=14)
        recipe_cpu_s += _cpu_s([MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config=config)])
        left = [JsonlReader(filtered), MinhashDedupFilter(f"{work}/remove"), PIIFormatter(), JsonlWriter(f"{work}/out")]
        recipe_cpu_s += _cpu_s(left)
        kept = sum(gzip.decompress(path.read_bytes()).count(b"\n") for path in (place / "out").glob("*.gz"))
    result = {"signature_cpu_s": signature_cpu_s, "recipe_cpu_s": recipe_cpu_s, "kept": kept}
    sys.stdout.write("\n" + json.dumps(result) + "\n")


def _signatures(folder: str, place: Path, config: MinhashConfig, language: str) -> list[Any]:
    return [JsonlReader(folder), MinhashDedupSignature(str(place), config=config, language=language)]


def _filters(folder: str, place: Path, language: str, lid_model: str) -> list[Any]:
    by_language = LanguageFilter(CODES[language])
    by_language.model = _Local([CODES[language]], lid_model)
    chain: list[Any] = [JsonlReader(folder), by_language, GopherRepetitionFilter(language=language)]
    if language == "eng":
        chain += [GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter()]
    else:
        stop_words = ["的", "了", "是", "在", "和", "有", "不", "这", "为", "于"]
        chain += [GopherQualityFilter(min_avg_word_length=1, stop_words=stop_words, language=language)]
    return [*chain, JsonlWriter(str(place / "filtered"))]


def _cpu_s(pipeline: list[Any], tasks: int = 1) -> float:
    """CPU seconds of a pipeline, its tasks one after the other, in a process of its own: a tokenizer that was used
    once cannot be handed to the next pipeline."""
    told, tells = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_run, args=(pipeline, tasks, tells))
    child.start()
    tells.close()
    try:
        cpu_s = float(told.recv())
    except EOFError:
        sys.exit("a pipeline failed, see above")
    child.join()
    return cpu_s


def _run(pipeline: list[Any], tasks: int, tells: Connection) -> None:
    started = time.process_time()
    with tempfile.TemporaryDirectory() as logs:
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=logs).run()
    tells.send(time.process_time() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
