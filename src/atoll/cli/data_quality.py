"""`data train-quality`: models of quality from examples on this machine, or from what people said about items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from atoll.data.engine.quality.examples import Label

METHODS = ("classifier", "perplexity")
AUC_POOR = 0.65
"""Below this a classifier is little better than chance."""

_TRAIN = [
    "atoll data train-quality good.jsonl --negative bad.jsonl --out quality.aqm",
    "atoll data train-quality ./edu-labels --label label_edu=good --out edu.aqm",
    "atoll data train-quality ./books --method perplexity --out books.aqm",
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Declare the command in the `data` group."""
    command(app, "train-quality", examples=_TRAIN)(train_quality)


def train_quality(
    session: Session,
    good: Annotated[
        list[Path],
        typer.Argument(help="Good texts: JSON lines, Parquet, text, folders, datasets.", metavar="GOOD…", exists=True),
    ],
    negative: Annotated[
        list[Path] | None, typer.Option("--negative", help="Texts of the other kind; repeatable.", exists=True)
    ] = None,
    label: Annotated[
        str | None,
        typer.Option("--label", help="GOOD holds both kinds; good are rows of these labels.", metavar="COLUMN=LABEL,…"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="File of the model.")] = Path("quality.aqm"),
    method: Annotated[str, typer.Option("--method", help="classifier or perplexity.")] = "classifier",
    text_column: Annotated[str, typer.Option("--text-column", help="Where the text is.")] = "text",
    epochs: Annotated[int, typer.Option("--epochs", min=1, max=100, help="Passes over the texts.")] = 5,
    bits: Annotated[
        int | None, typer.Option("--bits", min=10, max=24, help="Tables have 2**bits places: 18; perplexity 20.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of every choice.")] = 0,
    json: Json = False,
) -> None:
    """Train a model of quality from files; no server is needed. A recipe names the file: quality: [{name, model}].

    The export of a labelling task is such a folder: atoll data export edu-labels ./edu, then
    atoll data train-quality ./edu --label label_edu=good. On a platform a QualityModel does the same.
    """
    from atoll.cli.render import line, print_json
    from atoll.core.errors import Invalid
    from atoll.data.engine.quality.train import TEXT_BYTES_MAX, train_from_files

    if method not in METHODS:
        raise Invalid(f"there is no method {method!r}", field="method", hint=f"one of {', '.join(METHODS)}")
    wanted = {"method": method, "text_column": text_column, "rate": 2.0}
    wanted |= {"epochs": epochs, "bits": bits, "seed": seed, "shortest": 3, "longest": 4}
    wanted |= {"text_bytes_max": TEXT_BYTES_MAX}
    made = train_from_files(good, negative or [], out, wanted, _label(label))
    if json:
        print_json(made)
        return
    for text in quality_lines(out, made):
        line(text)


def _label(text: str | None) -> Label | None:
    """COLUMN=LABEL,… as the engine takes it; Invalid when it is not that."""
    from atoll.core.errors import Invalid
    from atoll.data.engine.quality.examples import Label

    if text is None:
        return None
    column, equals, labels = text.partition("=")
    if not (column and equals and labels.strip(",")):
        raise Invalid(f"--label cannot be {text!r}", field="label", hint="COLUMN=LABEL,…, such as label_edu=good")
    return Label(column, tuple(filter(None, labels.split(","))))


def quality_lines(out: Path, made: dict[str, Any]) -> list[str]:
    """What a model was made of, how good it is, and how a recipe names it."""
    from atoll.cli.render import size

    figures, name = made["figures"], out.stem.lower()
    if "auc" in figures:
        kinds = f"{figures['good']:,} good and {figures['texts'] - figures['good']:,} other texts"
        told = f"AUC {figures['auc']:.3f}, accuracy {figures['accuracy']:.1%}"
        told += f", calibration error {figures['calibration_error']:.3f}"
    else:
        kinds, told = f"{figures['texts']:,} texts", f"median perplexity {figures['perplexity_median']:,.0f}"
    lines = [f"{out}: {size(made['size_bytes'])}, from {kinds}"]
    lines.append(f"on {figures['tested']:,} texts it did not learn from: {told}")
    if figures.get("auc", 1.0) < AUC_POOR:
        lines.append("it hardly tells them apart: give more examples, or kinds that differ")
    if figures["left_out"]:
        lines.append(f"{figures['left_out']:,} texts were left out: there is more than a model learns from")
    shown = name if name.isidentifier() and name.isascii() else "mine"
    rule = f"rules: [{{rule: poor, drop: quality_{shown} < 0.5}}]"
    return [*lines, f"in a recipe: quality: [{{name: {shown}, model: {out}}}] and {rule}"]
