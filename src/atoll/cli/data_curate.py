"""`data curate|funnel|preview|columns|recipe`: curation on this machine, and what it dropped."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.session import Session, command
from atoll.core.errors import Invalid

if TYPE_CHECKING:
    from atoll.cli.follow import Board
    from atoll.data.manifest import Manifest

WHICH = "A version (NAME.vN, NAME, NAME@BRANCH, NAME@TAG), or a folder or tar with a dataset."

PASSED_OVER_SHOWN = 8
SAMPLES_MAX = 3
"""Samples that are kept of each rule."""

RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", "-r", help="Recipe: a .yaml, .json or .py file.", metavar="FILE")
]
Preset = Annotated[
    str | None,
    typer.Option("--preset", help="What the recipe starts from: documents, web-en, web-zh, code, instructions, chat."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Declare the commands in the `data` group."""
    command(
        app,
        "curate",
        examples=[
            "atoll data curate ./docs --out ./dataset",
            "atoll data curate 'crawl/*.jsonl.gz' --preset web-en --out ./web --workers 8",
            "atoll data curate articles.csv --field text=body --field id=number --out ./articles",
            "atoll data curate books=./books news=./news -r recipe.yaml --out ./mixed",
        ],
        no_args_is_help=True,
    )(curate)
    command(app, "funnel", examples=["atoll data funnel ./dataset", "atoll data funnel docs.v2 --samples 3"])(funnel)
    command(app, "preview", examples=["atoll data preview ./dataset --recipe stricter.yaml"])(preview)
    command(app, "columns", examples=["atoll data columns"])(columns)
    command(app, "recipe", examples=["atoll data recipe --preset web-en", "atoll data recipe -r recipe.yaml"])(recipe)


def curate(
    session: Session,
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders, patterns, pypi:NAME==VERSION, hf:OWNER/NAME; NAME=INPUT for a source of its own.",
            metavar="INPUT",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the dataset: new, or of an earlier curation.")],
    recipe: RecipeFile = None,
    preset: Preset = None,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Processes at work.")] = 1,
    runtime: Annotated[
        str, typer.Option("--runtime", help="process, or ray (RAY_ADDRESS names a cluster).")
    ] = "process",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of every choice.")] = 0,
    field: Annotated[
        list[str] | None,
        typer.Option("--field", help="What records and tables call text, id, title or url.", metavar="text=FIELD"),
    ] = None,
    json: Json = False,
) -> None:
    """Make a dataset of documents: read, measure, filter, deduplicate, protect, split. No server is needed.

    The folder gets manifest.json, Parquet files of every split, notes about every document, what was rejected, and
    report.json. Killed, it goes on when it is called again; with another recipe it begins with what was read already.
    """
    from atoll.cli.follow import board
    from atoll.cli.render import print_json
    from atoll.data.engine.curate.alone import curate_alone, recipe_from
    from atoll.data.engine.runtimes.without_pandas import do_without_pandas

    wanted = recipe_from(recipe, preset)
    if session.has_process and runtime != "ray":  # which uses pandas
        do_without_pandas()
    try:
        with board() as shown:
            progress = _Progress(shown, str(out))
            manifest, figures = curate_alone(
                inputs,
                wanted,
                out,
                workers=workers,
                runtime=runtime,
                seed=seed,
                fields=_fields(field or ()),
                report=progress.report,
            )
            progress.end(manifest)
    except Invalid as error:
        if (dropped := error.details.get("funnel")) and not json:
            print_funnel(dropped, {"documents_in": sum(step["dropped"] for step in dropped)}, SAMPLES_MAX)
        raise
    if json:
        print_json({"out": str(out), "counts": manifest.counts, "funnel": manifest.funnel, **figures})
    else:
        _tell(manifest, figures, out)


def _tell(manifest: Manifest, figures: Mapping[str, Any], out: Path) -> None:
    """What a run that has ended has to say."""
    from atoll.cli.render import line

    print_funnel(manifest.funnel, manifest.counts, 1)
    print_counts(manifest, figures)
    if refused := manifest.funnel[0]["dropped"]:
        from atoll.data.engine.curate.dataset import QUARANTINED, QUARANTINED_SHOWN  # loaded by now

        place = "report.json" if refused <= QUARANTINED_SHOWN else QUARANTINED
        line(f"{refused:,} could not be read: {out}/{place} says where and why")
    if manifest.passed_over:
        line(_passed_over(manifest.passed_over))
    line(f"the dataset is in {out}; look at it: atoll data describe {out}, atoll data funnel {out}")


def _fields(pairs: Sequence[str]) -> dict[str, str]:
    """What records call their parts, of `text=content` and the like."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, field = pair.partition("=")
        if name not in ("text", "id", "title", "url") or not field:
            raise Invalid(
                f"{pair!r} names no field", field="field", hint="text=FIELD, id=FIELD, title=FIELD or url=FIELD"
            )
        found[name] = field
    return found


def funnel(
    session: Session,
    dataset: Annotated[str, typer.Argument(help=WHICH, metavar="VERSION|DIR")],
    samples: Annotated[
        int, typer.Option("--samples", min=0, max=SAMPLES_MAX, help="Samples shown of each rule.")
    ] = SAMPLES_MAX,
    json: Json = False,
) -> None:
    """Show how many documents each rule dropped, their share, and samples of them."""
    from atoll.cli.data_versions import opened
    from atoll.cli.render import print_json

    with opened(session, dataset) as found:
        manifest = found.manifest
    if json:
        print_json({"counts": manifest.counts, "funnel": manifest.funnel})
        return
    print_funnel(manifest.funnel, manifest.counts, samples)


def preview(
    session: Session,
    dataset: Annotated[str, typer.Argument(help=WHICH, metavar="VERSION|DIR")],
    recipe: RecipeFile = None,
    preset: Preset = None,
    json: Json = False,
) -> None:
    """Show what another recipe would drop, from the notes of a dataset alone; nothing is computed anew."""
    from dataclasses import asdict

    from atoll.cli.data_versions import opened
    from atoll.cli.render import line, print_json, print_table
    from atoll.data.engine.curate.alone import recipe_from
    from atoll.data.engine.curate.preview import TO_COMPARE
    from atoll.data.engine.curate.preview import preview as previewed

    with opened(session, dataset) as found:
        told = previewed(found, recipe_from(recipe, preset))
    if json:
        print_json(asdict(told))
        return
    rows = [
        [
            *(change.rule, f"{change.before:,}", f"{change.after:,}"),
            *(_ids("+", change.added, change.coming), _ids("-", change.removed, change.going)),
        ]
        for change in told.changes
        if change.before or change.after
    ]
    print_table(["RULE", "BEFORE", "AFTER", "ADDED", "REMOVED"], right(rows, 1, 2))
    if any(change.rule == TO_COMPARE and change.after for change in told.changes):
        line(f"{TO_COMPARE}: dropped no more, or copies of what goes; whether they are duplicates takes a new run")
    if all(change.before == change.after for change in told.changes):
        line("no rule drops anything else")
    if told.untold:
        line(f"not told, since it takes a new run: {', '.join(told.untold)}")


def columns(session: Session, json: Json = False) -> None:
    """Print the columns rules may speak of: their range and what they count."""
    from atoll.cli.render import print_json, print_table
    from atoll.data.rules import COLUMNS, SHARES

    told = {name: (meaning, "0 to 1" if name in SHARES else "0 upwards") for name, meaning in COLUMNS.items()}
    told |= {
        "language": ('code of the language, compared with == and !=: language != "zh"', "text"),
        "language_score": ("how sure that is", "0 to 1"),
        "pii_KIND": ("how often personal data of the kind was found, such as pii_email", "0 upwards"),
        "quality_NAME": ("score of the model the recipe calls NAME under `quality`", "0 to 1"),
        "words_NAME": ("hits of the list the recipe calls NAME under `words`", "0 upwards"),
    }
    if json:
        print_json([{"column": name, "range": span, "meaning": words} for name, (words, span) in told.items()])
        return
    print_table(["COLUMN", "RANGE", "MEANING"], [[name, span, words] for name, (words, span) in told.items()])


def recipe(session: Session, recipe: RecipeFile = None, preset: Preset = None) -> None:
    """Print a recipe with everything its preset fills in, as YAML."""
    from atoll.data.engine.curate.alone import described, recipe_from

    sys.stdout.write(described(recipe_from(recipe, preset)).decode())


class _Progress:
    """Shows each stage of a run on a line of its own."""

    def __init__(self, shown: Board, label: str) -> None:
        self._shown = shown
        self._label = label
        self._last = ""

    def report(self, stage: str, done: float, total: float | None = None, unit: str = "", **more: Any) -> None:
        family = stage.partition("-")[0].partition("/")[0]
        if self._last and self._last != family:
            self._shown.show(f"{self._label} {self._last}", "succeeded")
        self._last = family
        progress: Mapping[str, Any] = {"stage": family, "done": done, "total": total, "unit": unit}
        self._shown.show(f"{self._label} {family}", "running", "", progress)

    def end(self, manifest: Manifest) -> None:
        counts = manifest.counts
        said = f"{counts['documents_out']} of {counts['documents_in']} documents"
        self._shown.show(f"{self._label} {self._last}", "succeeded", said)


def print_funnel(funnel: Sequence[Mapping[str, Any]], counts: Mapping[str, int], samples: int) -> None:
    """A line for each rule: how many documents it dropped, their share of all, and samples."""
    from atoll.cli.render import clean, print_table

    total = max(1, counts.get("documents_in", 0))
    rows: list[list[str]] = []
    for step in funnel:
        told = [clean(" ".join(sample.split()))[:80] for sample in step.get("samples", [])[:samples]] or [""]
        rows.append([step["rule"], f"{step['dropped']:,}", f"{step['dropped'] / total:.1%}", told[0]])
        rows += [["", "", "", sample] for sample in told[1:]]
    kept = counts.get("documents_out", 0)
    rows.append(["kept", f"{kept:,}", f"{kept / total:.1%}", ""])
    print_table(["RULE", "DROPPED", "SHARE", "SAMPLE"], right(rows, 1, 2))


def print_counts(manifest: Manifest, figures: Mapping[str, Any]) -> None:
    """What came out, and at what cost."""
    from atoll.cli.render import duration, line, size

    splits = ", ".join(f"{name} {split.rows}" for name, split in manifest.splits.items() if split.rows)
    line(f"rows: {splits}")
    if cut := manifest.counts.get("documents_cut"):
        line(f"repeats were cut out of {cut:,} of the documents kept")
    if manifest.privacy:
        line(f"personal data: {_privacy(manifest.privacy)}")
    read = size(figures["input_bytes"])
    rate = f"{figures['mb_per_cpu_s']:.1f} MB per CPU second"
    line(f"{read} in {duration(figures['seconds'])}, {figures['cpu_s']:.1f} CPU seconds, {rate}")


def _passed_over(found: Mapping[str, int]) -> str:
    """How many files are no documents by their names, and what most of them are."""
    most = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:PASSED_OVER_SHOWN]
    kinds = ", ".join(f"{files:,} {suffix or 'without suffix'}" for suffix, files in most)
    total = sum(found.values())
    files = "file was" if total == 1 else "files were"
    return (
        f"{total:,} {files} passed over ({kinds}); what is given itself, as 'FOLDER/*.log', is read whatever its name"
    )


def _privacy(found: Mapping[str, Mapping[str, int]]) -> str:
    return ", ".join(f"{kind} {count} ({action})" for kind, done in found.items() for action, count in done.items())


def _ids(sign: str, ids: Sequence[str], count: int) -> str:
    more = [f"and {count - len(ids):,} more"] if count > len(ids) else []
    return ", ".join([*(f"{sign}{name}" for name in ids), *more])


def right(rows: Sequence[Sequence[str]], *columns: int) -> list[list[str]]:
    """Rows whose figures in `columns` end at one place."""
    wide = {column: max((len(row[column]) for row in rows), default=0) for column in columns}
    return [[text.rjust(wide[i]) if i in wide and text else text for i, text in enumerate(row)] for row in rows]
