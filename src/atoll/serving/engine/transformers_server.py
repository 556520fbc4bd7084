"""Serve a folder of safetensors with transformers, in this process: any text model it knows, without an accelerator.

Run as `python -m atoll.serving.engine.transformers_server` in a task directory. Chat, completions and embeddings in
OpenAI's language; answers are computed together (see `batcher`), held to schemas, grammars and function calls while
they are generated (see `constraints`), and end when their client goes. It is made to be complete and correct rather
than fast: where there is an accelerator vLLM and SGLang are many times faster, and so is llama.cpp on processors.
"""

from __future__ import annotations

import os
from typing import Any

from atoll.core import task

SPIN_COUNT = "1000"
"""Spins of an idle OpenMP thread before it sleeps: long spins starve the neighbours, and us when cores are shared."""


def serve(data: dict[str, Any]) -> None:
    """Serve what the input names until told to stop; leaves the process, never returns normally."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read once, when PyTorch below is loaded
    from atoll.serving.engine import text_server

    text_server.serve(data)


if __name__ == "__main__":
    task.run(serve)
