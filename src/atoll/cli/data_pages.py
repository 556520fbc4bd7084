"""How datasets, their differences and their lineage look as text. Pure: values in, lines out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atoll.data.engine.versions.diff import Diff, PartDiff

DROPPED_SHOWN = 12
COLUMNS_SHOWN = 8


def description_lines(told: Mapping[str, Any]) -> list[str]:
    """A dataset's description, one page."""
    from atoll.cli.render import aligned, size

    facts = [
        ("licence", told["licence"] or "unknown"),
        ("size", size(told["size_bytes"])),
        ("parents", ", ".join(told["parents"]) or "none"),
        *((name.replace("_", " "), _number(value)) for name, value in told["counts"].items()),
    ]
    found = [str(told["name"]), *aligned([[f"  {name}", value] for name, value in facts])]
    rows = [_split_row(name, part) for name, part in told["splits"].items() if part["rows"]]
    found += ["", *aligned([["SPLIT", "ROWS", "SHARDS", "SIZE", "COLUMNS"], *rows])]
    found += _ranking("Languages", told["languages"]) + _ranking("Top sources", told["top_sources"])
    passed_over = {suffix or "(none)": files for suffix, files in told["passed_over"].items()}
    found += _ranking("Files passed over", dict(Counter(passed_over).most_common(DROPPED_SHOWN)))
    dropped = [step for step in told["funnel"] if step["dropped"]][:DROPPED_SHOWN]
    found += _ranking("Dropped by", {step["rule"]: step["dropped"] for step in dropped})
    return found + _block("Privacy", told["privacy"]) + _block("Sources", told["sources"])


def diff_lines(found: Diff) -> list[str]:
    """Two datasets' differences, readable."""
    if found.is_empty:
        return [f"{found.before} and {found.after} are the same"]
    lines = [f"--- {found.before}", f"+++ {found.after}"]
    for title, changes in (("Facts", found.fields), ("Counts", found.counts), ("Columns", found.columns)):
        told = [f"  {name}: {_short(was)} → {_short(now)}" for name, (was, now) in changes.items()]
        lines += ["", title, *told] if told else []
    if found.recipe:
        lines += ["", "Recipe", *(f"  {text}" for text in found.recipe)]
    for name, part in found.parts.items():
        lines += _part_lines(name, part)
    return lines


def lineage_lines(found: Mapping[str, Any]) -> list[str]:
    """A lineage as two trees."""
    return ["Came from", *tree_lines(found["up"], "  "), "", "Became", *tree_lines(found["down"], "  ")]


def origin_lines(told: Mapping[str, Any]) -> list[str]:
    """Where a dataset outside the platform came from, as a tree."""
    from atoll.data.lineage import source_of

    found = [f"dataset {told['name']}"]
    for source in told["sources"]:
        node = source_of(source)
        name = (
            node.name if node else f"{source['kind']} {source.get('reference') or source.get('digest') or ''}".strip()
        )
        licence = str(source.get("licence") or "unknown")
        found.append(f"  source {name} ({licence if licence != 'unknown' else 'licence unknown'})")
    return ["Came from", *(f"  {line}" for line in found)] + [f"    parent {digest}" for digest in told["parents"]]


def tree_lines(node: Mapping[str, Any], indent: str = "") -> list[str]:
    """One line a node."""
    phase = f"({node['phase']})" if node["phase"] else ""
    own = indent + " ".join(word for word in (node["kind"], node["name"], phase, node["note"]) if word)
    return [own, *(line for child in node["children"] for line in tree_lines(child, indent + "  "))]


def _part_lines(name: str, part: PartDiff) -> list[str]:
    if not (part.added or part.removed or part.changed):
        return []
    words = f"{name}: {part.before} → {part.after} rows, {part.added} added, {part.removed} removed"
    lines = ["", f"{words}, {part.changed} changed"]
    lines += [f"  + {row['id']}: {row['text']}" for row in part.samples["added"]]
    lines += [f"  - {row['id']}: {row['text']}" for row in part.samples["removed"]]
    for row in part.samples["changed"]:
        lines += [f"  ~ {row['id']} ({', '.join(row['fields'])})"]
        lines += [f"      - {row['before']}", f"      + {row['after']}"]
    return lines


def _split_row(name: str, part: Mapping[str, Any]) -> list[str]:
    from atoll.cli.render import size

    columns = list(part["columns"])
    more = [f"and {len(columns) - COLUMNS_SHOWN} more"] if len(columns) > COLUMNS_SHOWN + 1 else []
    shown = ", ".join([*(columns[:COLUMNS_SHOWN] if more else columns), *more])
    return [name, _number(part["rows"]), str(part["shards"]), size(part["size_bytes"]), shown]


def _ranking(title: str, figures: Mapping[str, int]) -> list[str]:
    from atoll.cli.render import aligned

    rows = [[f"  {name}", _number(value)] for name, value in figures.items()]
    return ["", title, *aligned(rows)] if rows else []


def _block(title: str, value: Any) -> list[str]:
    from atoll.core.yaml_lines import dump_yaml

    return ["", title, *_indented(dump_yaml(value).splitlines())] if value else []


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _short(value: Any) -> str:
    text = "none" if value in (None, [], {}, "") else str(value)
    return text if len(text) <= 160 else f"{text[:159]}…"
