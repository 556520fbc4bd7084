"""`explain`: the fields of a kind, from its JSON schema."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from atoll.sdk.wire import KindInfo

Schema = dict[str, Any]

_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
    "minItems": "items at least",
    "maxItems": "items at most",
    "minLength": "characters at least",
    "maxLength": "characters at most",
    "pattern": "pattern",
}


_DEFAULT_SHOWN = 40
"""Characters of a default in a table; its own page has it whole."""

_REQUEST_FIELDS = (
    *("note", "at", "model", "endpoint", "deployment", "replica", "provider", "priority", "queue_s", "ttft_s"),
    *("duration_s", "prompt_tokens", "cached_tokens", "completion_tokens", "cost", "key_id", "user", "source", "seq"),
)


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the command."""
    examples = [
        "atoll explain deployment",
        "atoll explain trainingrun.spec.recipe",
        "atoll explain deployment.replicas",
        "atoll explain request chatcmpl-1a2b3c",
    ]
    command(app, "explain", panel=panel, examples=examples)(explain)


def explain(
    session: Session,
    path: Annotated[str, typer.Argument(help="A kind, or a field of it.", metavar="KIND[.FIELD…]")],
    request_id: Annotated[str, typer.Argument(help="After `request`: the id of one.", metavar="[ID]")] = "",
) -> None:
    """Say what a kind is and what its fields mean: type, default, limits, choices, nested fields.

    `explain request ID` says what is known of one request: tokens, cost, replica, waiting, and why it went there.

    A field path may begin with spec or status; without either, spec is meant. Works without a server, from
    the kinds this installation knows.
    """
    if request_id or path == "request":
        explain_request(session, path, request_id)
        return
    kind_name, _, field_path = path.partition(".")
    info = find_kind(session, kind_name)
    print_page(page(info, [part for part in field_path.split(".") if part]))


def explain_request(session: Session, word: str, request_id: str) -> None:
    """What was recorded of a request, a line each."""
    from atoll.cli.render import line, moment
    from atoll.core.errors import Invalid

    if word != "request" or not request_id:
        hint = "atoll explain KIND[.FIELD…], or atoll explain request ID"
        raise Invalid(f"cannot explain {f'{word} {request_id}'.strip()!r}", field="path", hint=hint)
    for index, found in enumerate(session.client.money.request(request_id)):
        if index:
            line()
        line(f"request {found['request_id']}: {found['status']}, HTTP {found['http_status']}")
        shown = {**found, "at": moment(found["at"]), "cost": f"{found['cost']:.6g} {found['currency']}".strip()}
        for name in _REQUEST_FIELDS:
            if shown[name] not in (None, ""):
                line(f"  {name.replace('_', ' ')}: {shown[name]}")


def find_kind(session: Session, name: str) -> KindInfo:
    """The kind as the server knows it; as this installation does when no server answers or the key is refused."""
    from atoll.cli.render import note
    from atoll.core.errors import Unauthorized, Unavailable

    try:
        return session.client.kind(name)
    except (Unavailable, Unauthorized):
        note("no server to ask; from this installation")
        return local_kind(name)


def local_kind(name: str) -> KindInfo:
    """A kind of this installation."""
    from atoll.sdk.wire import KindInfo
    from atoll.server.kinds import KINDS

    kind = KINDS.named(name)
    spec, status = kind.spec.model_json_schema(), kind.status.model_json_schema()
    return KindInfo(kind.name, kind.plural, kind.description, kind.scope, [], kind.is_internal, spec, status)


@dataclass(frozen=True, slots=True)
class FieldFacts:
    """One field for a reader."""

    name: str
    type: str
    description: str = ""
    default: str = ""
    limits: str = ""
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """What explain shows: the thing itself, then its fields in groups."""

    title: str
    facts: FieldFacts
    groups: list[tuple[str, list[FieldFacts]]]


def page(info: KindInfo, path: list[str]) -> Page:
    """The page of a kind or of the field at `path`; NotFound names the nearest fields."""
    if not path:
        facts = FieldFacts(info.name, "kind", info.description)
        groups = [("spec", _fields_of(info.spec_schema)), ("status", _fields_of(info.status_schema))]
        return Page(f"{info.name} ({info.plural})", facts, groups)
    root = path[0] if path[0] in ("spec", "status") else "spec"
    rest = path[1:] if path[0] == root else path
    schema = info.status_schema if root == "status" else info.spec_schema
    if not rest:
        facts = FieldFacts(root, "object", schema.get("description", ""))
        return Page(f"{info.name}.{root}", facts, [("", _fields_of(schema))])
    facts, variants = _walk(schema, rest, f"{info.name}.{root}")
    return Page(".".join([info.name, root, *rest]), facts, [(title, fields) for title, fields in variants if fields])


def _walk(root: Schema, path: list[str], title: str) -> tuple[FieldFacts, list[tuple[str, list[FieldFacts]]]]:
    """The field at `path` below `root`, and the fields of each object it may hold."""
    objects, facts = [root], FieldFacts("", "")
    for part in path:
        holders = [o for o in objects if part in o.get("properties", {})]
        if not holders:
            raise _no_field(title, part, objects)
        schema = holders[0]["properties"][part]
        facts = _facts(part, schema, root, part in holders[0].get("required", []))
        objects = [found for o in holders for found in _objects_in(o["properties"][part], root)]
        title = f"{title}.{part}"
    return facts, [(_variant(o, objects), _fields_of(o, root)) for o in objects]


def _variant(schema: Schema, among: list[Schema]) -> str:
    if len(among) == 1:
        return ""
    description = str(schema.get("description", "")).partition("\n")[0]
    return f"{schema.get('title', 'object')}: {description}" if description else str(schema.get("title", "object"))


def _no_field(title: str, part: str, objects: list[Schema]) -> Exception:
    import difflib

    from atoll.core.errors import Invalid

    known = [name for o in objects for name in o.get("properties", {})]
    nearest = difflib.get_close_matches(part, known, 1, 0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    valid = f"fields: {', '.join(known)}" if known else "it has no fields"
    return Invalid(f"{title} has no field {part!r}", field=part, hint=f"{hint}{valid}")


def _fields_of(schema: Schema, root: Schema | None = None) -> list[FieldFacts]:
    required = schema.get("required", [])
    properties = schema.get("properties", {})
    return [_facts(name, field, root or schema, name in required) for name, field in properties.items()]


def _facts(name: str, schema: Schema, root: Schema, is_required: bool) -> FieldFacts:
    full = _merged(schema, root)
    default = "" if is_required or "default" not in schema else json.dumps(schema["default"], ensure_ascii=False)
    limits = ", ".join(f"{word} {full[key]}" for key, word in _LIMITS.items() if key in full)
    return FieldFacts(name, type_of(schema, root), str(full.get("description", "")), default, limits, is_required)


def _merged(schema: Schema, root: Schema) -> Schema:
    """A schema with what its reference and its only non-null choice say; its own words win."""
    choices = [c for c in schema.get("anyOf", []) if c.get("type") != "null"]
    inner = choices[0] if len(choices) == 1 else {}
    return {**_resolved(inner, root), **_resolved(schema, root), **schema}


def type_of(schema: Schema, root: Schema) -> str:
    """A type in words: text, number, list of …, one of …, the name of an object."""
    schema = {**_resolved(schema, root), **{k: v for k, v in schema.items() if k != "$ref"}}
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    if "enum" in schema:
        return "one of " + ", ".join(json.dumps(v, ensure_ascii=False) for v in schema["enum"])
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(type_of(choice, root) for choice in choices))
    return _plain_type(schema, root)


def _plain_type(schema: Schema, root: Schema) -> str:
    kind = schema.get("type")
    if kind == "array":
        return f"list of {type_of(schema.get('items', {}), root)}"
    if kind == "object" and "properties" not in schema:
        values = schema.get("additionalProperties")
        return f"mapping to {type_of(values, root)}" if isinstance(values, dict) and values else "mapping"
    if kind == "object":
        return str(schema.get("title", "object"))
    names = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "null": "none",
    }
    return names.get(str(kind), "anything")


def _objects_in(schema: Schema, root: Schema) -> list[Schema]:
    """Every object with fields a value of this schema may be or hold."""
    schema = _resolved(schema, root)
    if "properties" in schema:
        return [schema]
    inner = [*schema.get("anyOf", []), *schema.get("oneOf", [])]
    inner += [s for s in (schema.get("items"), schema.get("additionalProperties")) if isinstance(s, dict)]
    return [found for s in inner for found in _objects_in(s, root)]


def _resolved(schema: Schema, root: Schema) -> Schema:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Schema = root["$defs"][str(reference).rpartition("/")[2]]
    return found


def print_page(shown: Page) -> None:
    """A page on standard output."""
    from atoll.cli.render import line

    facts = shown.facts
    line(f"{shown.title}: {facts.type}" if facts.type != "kind" else shown.title)
    if facts.description:
        line(f"  {' '.join(facts.description.split())}")
    for label, text in (("default", facts.default), ("limits", facts.limits)):
        if text:
            line(f"  {label}: {text}")
    if facts.is_required:
        line("  required")
    for title, fields in shown.groups:
        _print_fields(title, fields)


def _print_fields(title: str, fields: list[FieldFacts]) -> None:
    from atoll.cli.render import line, print_table

    line(f"\n{title or 'Fields'}")
    print_table(["  FIELD", "TYPE", "DEFAULT", "MEANING"], [_field_row(f) for f in fields])


def _field_row(facts: FieldFacts) -> list[str]:
    meaning = " ".join(facts.description.split())
    limits = f" ({facts.limits})" if facts.limits else ""
    default = "required" if facts.is_required else facts.default or "-"
    shown = default if len(default) <= _DEFAULT_SHOWN else f"{default[: _DEFAULT_SHOWN - 1]}…"
    return [f"  {facts.name}", facts.type, shown, meaning + limits]
