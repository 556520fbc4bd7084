"""A dataset of the Python code on this machine, without a server: `python curate.py [FOLDER]`.

Curates the standard library's modules, asks what a stricter recipe would drop, and applies it: the second run reads
nothing anew. FOLDER (default: ./python-code) holds the dataset and can be looked at with `atoll data describe FOLDER`.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES = ("email", "json", "html", "http", "idlelib", "importlib", "unittest", "xml")


def atoll(*arguments: str) -> None:
    subprocess.run([str(Path(sys.executable).with_name("atoll")), "data", *arguments], check=True)


def main() -> None:
    out = sys.argv[1] if len(sys.argv) > 1 else "python-code"
    library = Path(sysconfig.get_path("stdlib"))
    inputs = [str(library / name) for name in PACKAGES if (library / name).is_dir()]
    recipe, stricter = str(HERE / "recipe.yaml"), str(HERE / "stricter.py")

    atoll("curate", *inputs, "--recipe", recipe, "--out", out, "--workers", "2")
    atoll("preview", out, "--recipe", stricter)
    atoll("curate", *inputs, "--recipe", stricter, "--out", out, "--workers", "2")
    atoll("describe", out)


if __name__ == "__main__":
    main()
