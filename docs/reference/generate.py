"""Write the reference pages from the code: settings, kinds, errors, the API's routes.

.venv/bin/python docs/reference/generate.py          writes them
.venv/bin/python docs/reference/generate.py --check  exits 1 when one is out of date (a test runs this)
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from atoll.core import errors
from atoll.core.resources import KINDS, models_in
from atoll.core.settings import ENVIRONMENT_PREFIX, Settings
from atoll.server import kinds

HERE = Path(__file__).parent
NOTE = "<!-- made by docs/reference/generate.py; do not edit -->\n\n"
assert kinds.DOMAINS


def settings() -> str:
    rows = [
        f"| `{name}` | `{ENVIRONMENT_PREFIX}{name.upper()}` | `{field.default}` | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    head = "# Settings\n\nDefaults, then `<home>/atoll.toml`, then the environment, then command-line options.\n\n"
    return NOTE + head + "| setting | environment | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def resources() -> str:
    parts = [
        NOTE,
        "# Kinds\n\nEvery resource has `kind`, `project`, `name`, `labels`, `spec` (wanted) and `status` (is).\n",
    ]
    for kind in KINDS:
        made_by = " Made by the platform, not by hand." if kind.is_internal else ""
        parts.append(f"\n## {kind.name}\n\n{kind.description}{made_by}\n")
        for title, model in (("spec", kind.spec), ("status", kind.status)):
            rows = list(_fields(model, ""))
            if rows:
                table = "| field | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows)
                parts.append(f"\n`{title}`\n\n{table}\n")
    return "".join(parts)


def error_codes() -> str:
    known = sorted({(k.http_status, k.code, (k.__doc__ or "").split("\n")[0]) for k in _kinds_of_errors()})
    rows = [f"| `{code}` | {status} | {text} |" for status, code, text in known]
    head = '# Errors\n\nThe API answers `{"error": {"code", "message", "hint", "details"}}`.\n\n'
    return NOTE + head + "| code | HTTP | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def routes() -> str:
    from atoll.core.settings import load
    from atoll.server.app import make_app
    from atoll.server.centre import Centre

    with tempfile.TemporaryDirectory() as home:
        document = make_app(Centre(load({"home": home}, {}))).openapi()
    rows = [
        f"| `{verb.upper()}` | `{path}` | {operation.get('description', '').splitlines()[0]} |"
        for path, verbs in sorted(document["paths"].items())
        for verb, operation in verbs.items()
    ]
    head = (
        "# Management API\n\nThe OpenAPI document is at `/api/v1/openapi.json`, a browsable form at `/api/v1/docs`.\n\n"
    )
    return NOTE + head + "| verb | path | what it does |\n|---|---|---|\n" + "\n".join(rows) + "\n"


PAGES = {"settings.md": settings, "kinds.md": resources, "errors.md": error_codes, "api.md": routes}


def main() -> int:
    outdated = []
    for name, make in PAGES.items():
        path, text = HERE / name, make()
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            outdated.append(name)
    if outdated:
        print(f"out of date: {', '.join(outdated)}; run docs/reference/generate.py", file=sys.stderr)
    return 1 if outdated else 0


def _fields(model: type[BaseModel], path: str) -> Iterator[str]:
    schema: dict[str, Any] = model.model_json_schema()["properties"] if model.model_fields else {}
    for name, field in model.model_fields.items():
        where = f"{path}{name}"
        default = "required" if field.is_required() else _default(schema[name].get("default", "…"))
        yield f"| `{where}` | {_type(schema[name])} | {default} | {field.description or ''} |".replace("||", r"\|\|")
        for nested in models_in(field.annotation):
            yield from _fields(nested, f"{where}.")


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "object"))


def _default(value: object) -> str:
    text = str(value)
    return f"`{text}`" if len(text) <= 40 else "…"


def _kinds_of_errors() -> list[type[errors.AtollError]]:
    return [
        k
        for k in vars(errors).values()
        if isinstance(k, type) and issubclass(k, errors.AtollError) and "code" in vars(k)
    ]


if __name__ == "__main__":
    sys.exit(main())
