"""The environment a task starts with: a short list from the agent's own, what the task asks for, and ATOLL_*.

Nothing else of the agent's environment reaches a task: above all not its key to the centre.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from atoll.compute.runtime.base import TaskSpec

PASSED = frozenset(
    {
        *("HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "XDG_CACHE_HOME"),
        *("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
    }
)
PASSED_PREFIXES = ("LC_", "PIP_", "HF_", "CUDA_", "NVIDIA_", "ROCM_", "HIP_", "ASCEND_", "NCCL_", "GOMP_")
OBJECT_STORE_PREFIXES = ("AWS_", "FSSPEC_")
"""Passed only where the blobs are in an object store, which engines must be able to read."""


def node_environment(environ: Mapping[str, str], blobs: str) -> dict[str, str]:
    """What every task of this node gets from the agent's `environ`. `python` is the agent's own interpreter."""
    is_remote = "://" in blobs and not blobs.startswith("file:")
    prefixes = PASSED_PREFIXES + (OBJECT_STORE_PREFIXES if is_remote else ())
    passed = {k: v for k, v in environ.items() if k in PASSED or k.startswith(prefixes)}
    passed["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{passed.get('PATH', os.defpath)}"
    return passed


def task_environment(spec: TaskSpec, folder: Path, home: Path, blobs: str) -> dict[str, str]:
    """The ATOLL_* variables and thread count of one task, which come on top of the node's."""
    threads = max(1, math.ceil(spec.resources.get("cpu") or 1))
    return {
        "OMP_NUM_THREADS": str(threads),
        "ATOLL_TASK_DIR": str(folder),
        "ATOLL_TASK_UID": spec.uid,
        "ATOLL_TASK_EPOCH": str(spec.epoch),
        "ATOLL_RANK": str(spec.rank),
        "ATOLL_WORLD_SIZE": str(spec.world_size),
        "ATOLL_BLOBS": blobs,
        "ATOLL_CACHE": str(home / "cache"),
        "ATOLL_WORK": str(home / "work" / (spec.workload_uid or spec.uid)),
    }
