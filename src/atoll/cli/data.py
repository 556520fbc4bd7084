"""`data`: curate, look at, label and move datasets."""

from __future__ import annotations

import typer

from atoll.cli import data_curate, data_labels, data_synthesis, data_versions


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the commands."""
    group = typer.Typer(help="Curate, inspect, label, synthesise, export and erase datasets.", no_args_is_help=True)
    for part in (data_curate, data_versions, data_labels, data_synthesis):
        part.add_to(group)
    app.add_typer(group, name="data", rich_help_panel=panel)
