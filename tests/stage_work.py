"""Functions for tests of stages and runtimes: module-level, so that workers can import them."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

from atoll.core.errors import Invalid


def copy(item: Any, folder: Path) -> None:
    """Leave the item as text."""
    (folder / "item.txt").write_text(str(item))


def work(item: Any, folder: Path) -> None:
    """Do as the item says: "boom" fails, "wrong" is refused, "die" ends the process, "once PATH" does so once."""
    if item == "boom":
        raise KeyError("sum")
    if item == "wrong":
        raise Invalid("this file is wrong", field="sources[0]", hint="correct it")
    if item == "die" or (str(item).startswith("once ") and _is_first(Path(str(item).removeprefix("once ")))):
        os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()
    if item == "full":
        with (folder / "big").open("wb") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
    copy(item, folder)


def _is_first(mark: Path) -> bool:
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def process_of(item: Any, folder: Path) -> None:
    """Leave the number of the process, and of its threads of numba."""
    (folder / "item.txt").write_text(f"{os.getpid()} {os.environ.get('NUMBA_NUM_THREADS')}")
