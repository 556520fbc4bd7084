"""Run one bench (`make bench NAME=store`), or all of them, and write what they found to docs/benchmarks.md.

Every bench is a script that prints one JSON object as its last line. A bench that ran replaces its own section of the
page. Its "plots" are drawn beside the page: a name, what x and y are, and pairs (x, y) that a straight line through
the origin and the last of them is drawn under.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from parts import plot

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "benchmarks.md"
_HEAD = """# Benchmarks

Made by `make bench`, section by section; ratios and CPU time count, wall time on a shared machine does not.
"""


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


def section(result: dict[str, Any]) -> str:
    """What a bench found, as a section of the page."""
    machine = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    told = f"`{result['command']}` ({machine})"
    lines = [f"## {result['bench']}", "", told, "", "| figure | value |", "|---|---|"]
    lines += [f"| {name} | {_shown(value)} |" for name, value in result["figures"].items()]
    lines += [f"| rival: {name} | {_shown(value)} |" for name, value in result.get("rivals", {}).items()]
    lines += [f"\n![{name}]({_drawn(result['bench'], name, drawn)})" for name, drawn in result.get("plots", {}).items()]
    return "\n".join(lines) + "\n"


def keep(results: list[dict[str, Any]]) -> None:
    """Put the sections of `results` in their place on the page, by name."""
    page = PAGE.read_text() if PAGE.exists() else ""
    sections = {text.partition("\n")[0]: text for text in re.split(r"^## ", page, flags=re.MULTILINE)[1:]}
    sections |= {result["bench"]: section(result).removeprefix("## ") for result in results}
    PAGE.write_text(_HEAD + "".join(f"\n## {sections[name].rstrip()}\n" for name in sorted(sections)))
    print(f"wrote {PAGE}")


def _drawn(bench: str, name: str, drawn: dict[str, Any]) -> str:
    """The name of the picture, drawn beside the page."""
    file = PAGE.with_name(f"benchmarks-{bench}-{name}.svg")
    file.write_text(plot.svg(f"{bench}: {name}", drawn["x"], drawn["y"], drawn["points"]))
    return file.name


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    wanted = sys.argv[1:]
    unknown = [name for name in wanted if name not in names()]
    if unknown:
        sys.exit(f"there is no bench {unknown[0]!r}; there are: {', '.join(names())}")
    keep([bench(name) for name in wanted or names()])


if __name__ == "__main__":
    main()
