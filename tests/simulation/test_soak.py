"""Many more histories, for `make soak`."""

from __future__ import annotations

import pytest

from simulation.test_seeds import SEEDS
from simulation.world import check


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(SEEDS, SEEDS + 2000, 100))
def test_no_work_is_lost_or_doubled_in_two_thousand_more_histories(first: int) -> None:
    for seed in range(first, first + 100):
        check(seed)
