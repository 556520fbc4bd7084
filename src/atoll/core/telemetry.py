"""Metrics of the kernel, for Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

RECONCILE_SECONDS = Histogram(
    "atoll_reconcile_seconds", "Time one reconcile took.", ["controller"], buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10)
)
RECONCILE_ERRORS = Counter("atoll_reconcile_errors", "Reconciles that raised.", ["controller"])
