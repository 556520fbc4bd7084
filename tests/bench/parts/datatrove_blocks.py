"""datatrove's blocks for personal data and languages over a file of JSON lines; run by the Python of its environment.

    python datatrove_blocks.py privacy|language FILE [LID_MODEL]

Prints one JSON object: CPU seconds, and for languages the label of every text.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.formatters.pii import PIIFormatter
from datatrove.utils.lid import FT176LID

ROUNDS = 3


def privacy(texts: list[str]) -> dict[str, object]:
    formatter = PIIFormatter()
    formatter.format("warm up a@b.cd")
    return {"cpu_s": _least(lambda: [formatter.format(text) for text in texts])[0]}


def language(texts: list[str], model: str) -> dict[str, object]:
    """FineWeb's language block on the model file given, whose download is left out."""
    from fasttext.FastText import _FastText

    identifier = FT176LID()
    identifier._model = _FastText(model)
    documents = [Document(text=text, id="") for text in texts]
    identifier.predict(documents[0])
    spent, labels = _least(lambda: [identifier.predict(document)[0][0] for document in documents])
    return {"cpu_s": spent, "labels": labels}


def _least(work: Callable[[], list[str]]) -> tuple[float, list[str]]:
    """The least CPU seconds of some rounds, and what the last one gave."""
    best, result = float("inf"), []
    for _ in range(ROUNDS):
        started = time.process_time()
        result = work()
        best = min(best, time.process_time() - started)
    return best, result


def main() -> None:
    what, path, *rest = sys.argv[1:]
    texts = [json.loads(line)["text"] for line in Path(path).read_text(encoding="utf-8").splitlines()]
    sys.stdout.write(json.dumps(privacy(texts) if what == "privacy" else language(texts, rest[0])) + "\n")


if __name__ == "__main__":
    main()
