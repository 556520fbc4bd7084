"""Presidio's recognisers that need no language model, over a file of JSON lines; run by its own environment's Python.

    python presidio_patterns.py FILE

Prints one JSON object: CPU seconds and findings by entity.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

from presidio_analyzer.predefined_recognizers import (
    CreditCardRecognizer,
    EmailRecognizer,
    IbanRecognizer,
    IpRecognizer,
    PhoneRecognizer,
)


def main() -> None:
    texts = [json.loads(line)["text"] for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    recognisers = [CreditCardRecognizer(), EmailRecognizer(), IbanRecognizer(), IpRecognizer(), PhoneRecognizer()]
    found: Counter[str] = Counter()
    started = time.process_time()
    for text in texts:
        for recogniser in recognisers:
            results = recogniser.analyze(text, recogniser.supported_entities, None)
            found.update(result.entity_type for result in results or [])
    sys.stdout.write(json.dumps({"cpu_s": time.process_time() - started, "found": found}) + "\n")


if __name__ == "__main__":
    main()
