"""Bring the machine what the tests need beyond Python: PostgreSQL, where we may install it.

Not being able to is no failure: the tests that need it skip and say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def has_postgresql() -> bool:
    return any(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or shutil.which("initdb") is not None


def install(package: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install_it = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    for command in (["apt-get", "update", "-qq"], install_it):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}", file=sys.stderr)
            return


def main() -> None:
    if has_postgresql():
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing PostgreSQL for the tests")
        install("postgresql")
    if not has_postgresql():
        print("no PostgreSQL here: its tests skip (Debian: apt-get install postgresql)", file=sys.stderr)


if __name__ == "__main__":
    main()
