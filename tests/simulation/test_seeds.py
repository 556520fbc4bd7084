"""Two hundred histories of everything going wrong at once: nothing lost, nothing doubled, nothing left behind.

A seed that fails prints itself, its last moments, and the command that shows its whole history.
"""

from __future__ import annotations

import pytest

from simulation.world import World, check

SEEDS = 200
CHUNK = 10


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_work_is_lost_or_doubled_whatever_happens(first: int) -> None:
    for seed in range(first, first + CHUNK):
        check(seed)


def test_one_seed_is_one_history() -> None:
    histories = []
    for _ in range(2):
        world = World(11, trace=True)
        world.run()
        world.centre.database.close()
        histories.append(list(world.history))
    assert histories[0] == histories[1]
    assert len(histories[0]) > 20
