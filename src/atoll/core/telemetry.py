"""Logs as JSON lines and metrics for Prometheus; knows nothing of what is logged or counted."""

from __future__ import annotations

import logging
import sys
import time

import orjson
from prometheus_client import Counter, Histogram

RECONCILE_SECONDS = Histogram(
    "atoll_reconcile_seconds", "Time one reconcile took.", ["controller"], buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10)
)
RECONCILE_ERRORS = Counter("atoll_reconcile_errors", "Reconciles that raised.", ["controller"])

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonLines(logging.Formatter):
    """One JSON object a line: at, level, role, logger, message, extras, and the traceback if any."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "role": self._role,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def log_to_stderr(role: str, level: str = "INFO") -> None:
    """Send all logs of this process to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(role))
    logging.basicConfig(level=level, handlers=[handler], force=True)
