"""How things look: tables, durations, ages, bytes, phases. Colours on a terminal, plain aligned text elsewhere.

Pure but for the functions that print. Text from elsewhere is cleaned of control characters, so that a log
line or a name cannot drive the reader's terminal.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

MISSING = "-"
PHASE_STYLES = {
    "ready": "green",
    "succeeded": "green",
    "running": "cyan",
    "schedulable": "green",
    "starting": "yellow",
    "stopping": "yellow",
    "pending": "yellow",
    "degraded": "yellow",
    "cordoned": "yellow",
    "failed": "red",
    "lost": "red",
}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_CELL_CHARACTERS_MAX = 400


def clean(text: str) -> str:
    """`text` without control characters but newline and tab."""
    return _CONTROL.sub("", text)


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.4 s, 12 s, 3 m 05 s, 2 h 10 m, 3 d 4 h."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def age(at: float, now: float | None = None) -> str:
    """How long ago Unix time `at` was, short: 12s, 5m, 3h, 2d."""
    seconds = max(0, int((time.time() if now is None else now) - at))
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length or (unit == "d" and seconds >= length):
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def moment(at: float) -> str:
    """Unix time `at` as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def size(count_bytes: float) -> str:
    """Bytes in the largest unit that leaves at least 1: 512 B, 1.5 GiB."""
    amount, unit = float(count_bytes), 0
    while abs(amount) >= 1023.95 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.0f} B" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"


def count(number: float) -> str:
    """A large number short: 950, 134.5M, 7.0B."""
    for limit, unit in ((999.95e6, "B"), (999.95e3, "M"), (9_999.5, "k")):
        if abs(number) >= limit:
            return f"{number / {'B': 1e9, 'M': 1e6, 'k': 1e3}[unit]:.1f}{unit}"
    return f"{number:g}"


def dig(data: Any, path: str) -> Any:
    """What stands at a dotted path, None where it leads nowhere."""
    for part in path.split("."):
        if not isinstance(data, Mapping):
            return None
        data = data.get(part)
    return data


def cell(path: str, value: Any, now: float | None = None) -> str:
    """A value as table cell; the name's unit says how (`_bytes`, `_at`, `_s`)."""
    if value is None or value == "" or value == [] or value == {}:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return _number(path.rpartition(".")[2], value, now)
    if isinstance(value, Mapping):
        text = ", ".join(f"{k}={cell(str(k), v, now)}" for k, v in value.items())
    elif isinstance(value, (list, tuple)):
        text = ", ".join(cell("", v, now) for v in value)
    else:
        text = str(value)
    text = " ".join(clean(text).split())
    return text if len(text) <= _CELL_CHARACTERS_MAX else f"{text[: _CELL_CHARACTERS_MAX - 1]}…"


def _number(name: str, value: float, now: float | None) -> str:
    if name.endswith("_bytes"):
        return size(value) if value else MISSING
    if name.endswith("_at"):
        return age(value, now) if value else MISSING
    if (name.endswith("_s") and not name.endswith("_per_s")) or name == "seconds":
        return duration(value)
    if name == "parameters":
        return count(value) if value else MISSING
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def is_terminal() -> bool:
    """Whether standard output is a person's terminal."""
    return sys.stdout.isatty()


def console(*, is_error: bool = False) -> Console:
    """A Rich console that takes text literally."""
    from rich.console import Console

    return Console(stderr=is_error, highlight=False, markup=False, emoji=False)


def is_confirmed(question: str) -> bool:
    """Ask a person; no is what an empty answer means.

    With readline, for without it a Ctrl-C that comes between the question and the wait for its answer is lost.
    """
    import typer

    with contextlib.suppress(ImportError):  # not every Python is built with it
        import readline  # noqa: F401
    return typer.confirm(question)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output; the last column may wrap on a terminal, nothing is cut elsewhere."""
    if is_terminal():
        console().print(rich_table(headings, rows))
        return
    for line in aligned([list(headings), *rows]):
        sys.stdout.write(f"{line}\n")


def rich_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """The same table for a terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for i, heading in enumerate(headings):
        is_last = i == len(headings) - 1
        table.add_column(heading, no_wrap=not is_last, overflow="fold" if is_last else "ellipsis")
    for row in rows:
        table.add_row(*(styled(heading, text) for heading, text in zip(headings, row, strict=True)))
    return table


def styled(heading: str, text: str) -> Text:
    """A cell's text, coloured when it is a phase."""
    from rich.text import Text

    style = PHASE_STYLES.get(text, "") if heading == "PHASE" else ""
    return Text(text, style="dim" if text == MISSING else style)


def aligned(rows: Sequence[Sequence[str]], widths: Sequence[int] = ()) -> list[str]:
    """Rows as lines with columns two spaces apart, each at least as wide as `widths`; no space at a line's end."""
    if not rows:
        return []
    columns = range(len(rows[0]))
    least = [widths[i] if i < len(widths) else 0 for i in columns]
    wide = [max(least[i], *(_width(row[i]) for row in rows)) for i in columns]
    return ["  ".join(t + " " * (wide[i] - _width(t)) for i, t in enumerate(row)).rstrip() for row in rows]


def column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """How wide each column of these rows is."""
    return [max(map(_width, column)) for column in zip(*rows, strict=True)]


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text)


def print_json(value: Any) -> None:
    """A value as indented JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_yaml(value: Any) -> None:
    """A value as YAML on standard output."""
    from atoll.core.yaml_lines import dump_yaml

    sys.stdout.write(dump_yaml(value))


def line(text: str = "") -> None:
    """One plain line on standard output."""
    sys.stdout.write(f"{clean(text)}\n")


def note(text: str) -> None:
    """One dim line on standard error, for people only."""
    if sys.stderr.isatty():
        from rich.text import Text

        console(is_error=True).print(Text(clean(text), style="dim"))
    else:
        sys.stderr.write(f"{clean(text)}\n")
