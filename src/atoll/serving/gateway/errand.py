"""A step of a request that asks the centre while everything else of the gateway goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Errand:
    """Runs `step`; `on_broken` is called when it raised, which only our own mistakes make it do."""

    __slots__ = ("_on_broken", "_task")

    def __init__(self, step: Coroutine[Any, Any, None], on_broken: Callable[[], None]) -> None:
        self._on_broken = on_broken
        self._task = asyncio.get_running_loop().create_task(step)
        self._task.add_done_callback(self._on_done)

    def cancel(self) -> None:
        self._task.cancel()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a step of a request failed", exc_info=error)
            self._on_broken()
