"""Files end when their time has come."""

from __future__ import annotations

import random

from atoll.core.clock import VirtualClock
from atoll.core.collect import Collector
from atoll.core.reconcile import Loop
from atoll.core.store import Store
from atoll.data.files import FileController, create_file


def test_a_file_goes_at_its_time_and_others_stay(sqlite_store: Store, clock: VirtualClock) -> None:
    scope = sqlite_store.everything("test")
    wanted = {"digest": "sha256:" + "0" * 64, "size_bytes": 1}
    scope.write([create_file("red", "file-a", "a", "batch", **wanted, expires_at=clock.now() + 100)])
    scope.write([create_file("red", "file-b", "b", "batch", **wanted)])
    loop = Loop(sqlite_store, clock, [FileController(), Collector()], random.Random(1))

    def names() -> list[str]:
        loop.take_changes()
        while loop.step():
            loop.take_changes()
        return [file.name for file in scope.find_all("File")]

    assert names() == ["file-a", "file-b"]
    clock.advance(99)
    assert names() == ["file-a", "file-b"]
    clock.advance(2)
    names()
    assert names() == ["file-b"]
