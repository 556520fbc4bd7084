"""Run one bench (`make bench NAME=store`), or all of them and write docs/benchmarks.md.

Every bench is a script that prints one JSON object as its last line.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "benchmarks.md"


def names() -> list[str]:
    return sorted(p.stem for p in HERE.glob("*.py") if p.stem not in ("run", "__init__"))


def bench(name: str) -> dict[str, Any]:
    """Run it, showing what it prints; its last line, parsed."""
    command = [sys.executable, str(HERE / f"{name}.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parents[1]) as process:
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line if line.strip() else last
    if process.returncode:
        sys.exit(f"bench {name} failed with exit code {process.returncode}")
    result: dict[str, Any] = json.loads(last)
    return result


def page(results: list[dict[str, Any]]) -> str:
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench`; ratios and CPU time count, wall time on a shared machine does not.",
        "",
    ]
    lines += [f"Machine: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}.", ""]
    for result in results:
        lines += [f"## {result['bench']}", "", f"`{result['command']}`", "", "| figure | value |", "|---|---|"]
        lines += [f"| {name} | {_shown(value)} |" for name, value in result["figures"].items()]
        lines += [f"| rival: {name} | {_shown(value)} |" for name, value in result.get("rivals", {}).items()]
        lines.append("")
    return "\n".join(lines)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    wanted = sys.argv[1:]
    unknown = [name for name in wanted if name not in names()]
    if unknown:
        sys.exit(f"there is no bench {unknown[0]!r}; there are: {', '.join(names())}")
    if wanted:
        for name in wanted:
            bench(name)
        return
    PAGE.write_text(page([bench(name) for name in names()]))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
