"""Following long work: bars on a terminal, a line for each change elsewhere.

Shows whatever engines report in `status.progress`: stage, done, total, unit, message and free figures.
Everything goes to standard error; standard output is for results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from atoll.cli import render

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from atoll.core.resources import Resource

FIGURES_SHOWN = 3
PLAIN_EVERY_S = 15.0
_NAMED = frozenset({"stage", "done", "total", "unit", "message"})
_SETTLED = frozenset({"ready", "succeeded"})


class Board(Protocol):
    """Where lines of work are shown, one for each `label`."""

    def show(self, label: str, phase: str, reason: str = "", progress: Mapping[str, Any] | None = None) -> None:
        """Bring a line up to date, or add it."""

    def __enter__(self) -> Board: ...

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None: ...


def board() -> Board:
    """Bars when standard error is a terminal, lines otherwise."""
    return Bars() if sys.stderr.isatty() else Lines()


def show_resource(shown: Board) -> Callable[[Resource], None]:
    """A function that shows a resource's phase, reason and progress under its kind and name."""

    def show(resource: Resource) -> None:
        status = resource.status
        shown.show(f"{resource.kind} {resource.name}", resource.phase, status.get("reason", ""), status.get("progress"))

    return show


class Bars:
    """One live progress bar a line."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress: Progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}", markup=False),
            TimeElapsedColumn(),
            console=render.console(is_error=True),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, label: str, phase: str, reason: str = "", progress: Mapping[str, Any] | None = None) -> None:
        if label not in self._tasks:
            self._tasks[label] = self._progress.add_task(label, total=None, start=False, text="")
        task = self._tasks[label]
        if phase != "pending":
            self._progress.start_task(task)
        done, total = bar_of(phase, progress or {})
        self._progress.update(task, completed=done, total=total, text=text_of(phase, reason, progress or {}))
        if phase in _SETTLED or phase == "failed":
            self._progress.stop_task(task)


class Lines:
    """A line whenever phase, stage or reason changes, and now and then while figures move."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._said: dict[str, tuple[object, float, str]] = {}

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        sys.stderr.flush()

    def show(self, label: str, phase: str, reason: str = "", progress: Mapping[str, Any] | None = None) -> None:
        progress = progress or {}
        state = (phase, reason, progress.get("stage"))
        text = text_of(phase, reason, progress)
        last_state, last_at, last_text = self._said.get(label, (None, 0.0, ""))
        is_due = text != last_text and self._now() - last_at >= PLAIN_EVERY_S
        if state != last_state or is_due:
            self._said[label] = (state, self._now(), text)
            sys.stderr.write(f"{render.clean(f'{label}  {text}')}\n")
            sys.stderr.flush()


def bar_of(phase: str, progress: Mapping[str, Any]) -> tuple[float, float | None]:
    """(done, total) of the bar; total None while it cannot be known."""
    if phase in _SETTLED:
        return 1.0, 1.0
    total = progress.get("total")
    if not isinstance(total, (int, float)) or total <= 0:
        return 0.0, None
    return min(float(progress.get("done") or 0), float(total)), float(total)


def text_of(phase: str, reason: str, progress: Mapping[str, Any]) -> str:
    """What stands beside the bar: phase, then either the reason or the progress in words."""
    if phase in _SETTLED or phase == "failed":
        return f"{phase}: {reason}" if reason else phase
    parts = [phase, *_progress_parts(progress)]
    if reason and reason not in parts:
        parts.append(reason)
    return "  ".join(" ".join(part.split()) for part in parts)


def _progress_parts(progress: Mapping[str, Any]) -> list[str]:
    stage, message = str(progress.get("stage") or ""), str(progress.get("message") or "")
    figures = [
        f"{name} {render.cell(name, value)}"
        for name, value in progress.items()
        if name not in _NAMED and isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    return [part for part in (stage, _amount(progress), *figures[:FIGURES_SHOWN], message) if part]


def _amount(progress: Mapping[str, Any]) -> str:
    done, total, unit = progress.get("done"), progress.get("total"), str(progress.get("unit") or "")
    if not isinstance(done, (int, float)) or (not done and not total):
        return ""
    shown = render.size if unit in ("byte", "bytes") else render.count
    suffix = "" if unit in ("byte", "bytes", "") else f" {unit}"
    return f"{shown(done)}/{shown(total)}{suffix}" if total else f"{shown(done)}{suffix}"
