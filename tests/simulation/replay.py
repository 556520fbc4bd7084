"""See one seed's whole history: python tests/simulation/replay.py SEED."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulation.world import World


def main() -> None:
    world = World(int(sys.argv[1]), trace=True)
    try:
        world.run()
    finally:
        print("\n".join(world.history))


if __name__ == "__main__":
    main()
