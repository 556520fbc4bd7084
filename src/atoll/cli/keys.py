"""`keys`: API keys."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from atoll.sdk.wire import KeyInfo, NewKey

NONE = "none"
"""The word that takes a bound away."""

ID = Annotated[str, typer.Argument(help="Id of the key.", metavar="ID")]
Description = Annotated[str | None, typer.Option("--description", "-d", help="What the key is for.")]
ExpiresIn = Annotated[
    str | None, typer.Option("--expires-in", metavar="TIME", help="Refused after: 12h, 30d; none: never.")
]
Models = Annotated[
    list[str] | None, typer.Option("--model", metavar="NAME", help="Only this model; repeatable; none: all.")
]
Addresses = Annotated[
    list[str] | None,
    typer.Option("--address-from", metavar="NETWORK", help="Only from this network (CIDR); repeatable; none: any."),
]
RequestsPerMinute = Annotated[
    str | None, typer.Option("--requests-per-minute", metavar="N", help="Requests begun in any minute; none.")
]
TokensPerMinute = Annotated[
    str | None, typer.Option("--tokens-per-minute", metavar="N", help="Tokens in any minute; none.")
]
Parallel = Annotated[str | None, typer.Option("--parallel", metavar="N", help="Requests in flight at a time; none.")]
Priority = Annotated[str | None, typer.Option("--priority", help="Best class of its requests: high, normal or batch.")]
User = Annotated[
    str | None, typer.Option("--user", metavar="NAME", help="The user it belongs to; none: nobody in particular.")
]
OutputKey = Annotated[str, typer.Option("--output", "-o", help="key (alone) or json.")]


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the commands."""
    group = typer.Typer(help="Create, list, bound, rotate and revoke API keys.", no_args_is_help=True)
    examples = [
        "atoll keys create --description 'web shop'",
        "KEY=$(atoll keys create --expires-in 30d --model smollm2)",
        "atoll keys create --user ada --role owner --address-from 10.0.0.0/8",
    ]
    command(group, "create", examples=examples)(create)
    command(group, "list", examples=["atoll keys list", "atoll keys list -o json"])(list_keys)
    examples = [
        "atoll keys limit key-1a2b3c --requests-per-minute 60 --parallel 4",
        "atoll keys limit key-1a2b3c --address-from none --expires-in 90d",
    ]
    command(group, "limit", examples=examples)(limit)
    command(group, "rotate", examples=["KEY=$(atoll keys rotate key-1a2b3c --overlap 1h)"])(rotate)
    command(group, "revoke", examples=["atoll keys revoke key-1a2b3c"])(revoke)
    examples = ["atoll keys rotate-uploads", "atoll keys rotate-uploads --wait", "atoll get datakeys"]
    command(group, "rotate-uploads", examples=examples)(rotate_uploads)
    app.add_typer(group, name="keys", rich_help_panel=panel)


def create(
    session: Session,
    description: Description = None,
    role: Annotated[
        str, typer.Option("--role", help="owner, member, viewer, caller (calls models and nothing else) or admin.")
    ] = "member",
    expires_in: ExpiresIn = None,
    model: Models = None,
    address_from: Addresses = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    parallel: Parallel = None,
    priority: Priority = None,
    user: User = None,
    output: OutputKey = "key",
) -> None:
    """Make an API key and print it; it is shown this once and kept only as a hash.

    A key of a user has the user's role in every project the user is a member of, never above its own.
    """
    from atoll.cli.output import checked

    checked(output, ("key", "json"))
    fields = fields_from(
        description=description,
        expires_in=expires_in,
        models=model,
        addresses=address_from,
        priority=priority,
        user=user,
        limits=_rates(requests_per_minute, tokens_per_minute, parallel),
    )
    made = session.client.create_key(fields.pop("description", ""), role=role, **fields)
    _print_made(session, made, output, f"{made.id} of project {session.project}")


def list_keys(
    session: Session,
    output: Annotated[str, typer.Option("--output", "-o", help="table, json or yaml.")] = "table",
) -> None:
    """List the API keys of the project; the keys themselves are not kept and cannot be shown.

    LAST USED is the last call of a model.
    """
    from atoll.cli.get import wire_form
    from atoll.cli.output import checked, print_data
    from atoll.cli.render import print_table

    checked(output, ("table", "json", "yaml"))
    keys = session.client.keys()
    if output != "table":
        items = [{**wire_form(key.resource), "last_used_at": key.last_used_at} for key in keys]
        print_data({"items": items}, output)
    else:
        headings = ["ID", "ROLE", "STATE", "USER", "EXPIRES", "LAST USED", "MODELS", "BOUNDS", "AGE", "DESCRIPTION"]
        print_table(headings, [row(key) for key in keys])


def row(key: KeyInfo, now: float | None = None) -> list[str]:
    """One line of the list of keys."""
    import time

    from atoll.cli.render import age, cell, moment

    now = time.time() if now is None else now
    spec, expires_at = key.resource.spec, key.resource.spec.get("expires_at")
    state = "revoked" if spec.get("revoked") else "expired" if expires_at and expires_at <= now else "valid"
    return [
        key.resource.name,
        spec["role"],
        state,
        spec.get("user") or "-",
        moment(expires_at) if expires_at else "never",
        age(key.last_used_at, now) if key.last_used_at else "-",
        cell("models", spec.get("models")) if spec.get("models") else "all",
        ", ".join(bounds(spec)) or "-",
        age(key.resource.created_at, now),
        cell("description", spec.get("description")),
    ]


def bounds(spec: dict[str, Any]) -> list[str]:
    """What holds a key back, in words."""
    limits = spec.get("limits") or {}
    units = {"requests_per_minute": "requests/min", "tokens_per_minute": "tokens/min", "parallel": "at a time"}
    said = [f"{limits[name]} {unit}" for name, unit in units.items() if limits.get(name) is not None]
    if spec.get("addresses"):
        said.append(f"from {' '.join(spec['addresses'])}")
    if spec.get("priority", "normal") != "normal":
        said.append(f"{spec['priority']} priority")
    return said


def limit(
    session: Session,
    key_id: ID,
    description: Description = None,
    expires_in: ExpiresIn = None,
    model: Models = None,
    address_from: Addresses = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    parallel: Parallel = None,
    priority: Priority = None,
    user: User = None,
) -> None:
    """Change what a key is allowed; what is not named stays, and `none` takes a bound away."""
    from atoll.cli.render import line
    from atoll.core.errors import Invalid

    fields = fields_from(
        description=description,
        expires_in=expires_in,
        models=model,
        addresses=address_from,
        priority=priority,
        user=user,
        limits=_rates(requests_per_minute, tokens_per_minute, parallel),
    )
    if not fields:
        raise Invalid("nothing to change", field="options", hint="see: atoll keys limit --help")
    if "limits" in fields:
        before = session.client.get("ApiKey", key_id).spec.get("limits") or {}
        merged = {**before, **fields["limits"]}
        fields["limits"] = merged if any(value is not None for value in merged.values()) else None
    changed = session.client.change_key(key_id, **fields)
    line(f"{key_id}: {', '.join(bounds(changed.spec)) or 'no bounds on rate, address or priority'}")


def fields_from(
    *, limits: dict[str, str | None], models: list[str] | None, addresses: list[str] | None, **options: str | None
) -> dict[str, Any]:
    """The fields of a request that the options name; `none` becomes null."""
    from atoll.cli.times import seconds_from

    fields: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if (expires_in := fields.pop("expires_in", None)) is not None:
        fields["expires_in_s"] = None if expires_in == NONE else seconds_from(expires_in, "--expires-in")
    if fields.get("user") == NONE:
        fields["user"] = ""
    for name, words in (("models", models), ("addresses", addresses)):
        if words:
            fields[name] = None if words == [NONE] else words
    rates = {name: _count(value, name) for name, value in limits.items() if value is not None}
    return fields | ({"limits": rates} if rates else {})


def _rates(
    requests_per_minute: str | None, tokens_per_minute: str | None, parallel: str | None
) -> dict[str, str | None]:
    return {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute, "parallel": parallel}


def _count(text: str, name: str) -> int | None:
    from atoll.core.errors import Invalid

    if text == NONE:
        return None
    if not text.isdecimal():
        option = f"--{name.replace('_', '-')}"
        raise Invalid(f"{option} cannot be {text!r}", field=option, hint="a whole number, or none", value=text)
    return int(text)


def rotate(
    session: Session,
    key_id: ID,
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="TIME", help="How long the old key still works: 0, 1h, 7d.")
    ] = "1d",
    expires_in: Annotated[
        str | None, typer.Option("--expires-in", metavar="TIME", help="End of the new key; without: as the old one's.")
    ] = None,
    output: OutputKey = "key",
) -> None:
    """Make a key's successor, which may do the same, and print it; the old key ends after the overlap."""
    from atoll.cli.output import checked
    from atoll.cli.render import moment
    from atoll.cli.times import seconds_from

    checked(output, ("key", "json"))
    expires_in_s = seconds_from(expires_in, "--expires-in") if expires_in else None
    made = session.client.rotate_key(key_id, overlap_s=seconds_from(overlap, "--overlap"), expires_in_s=expires_in_s)
    ends = moment(made.replaced_ends_at) if made.replaced_ends_at else "later"
    _print_made(session, made, output, f"{made.id} takes the place of {key_id}, which works until {ends}")


def revoke(session: Session, key_id: ID) -> None:
    """Revoke an API key: it is refused from now on; its usage stays on record."""
    from atoll.cli.render import line

    session.client.revoke_key(key_id)
    line(f"{key_id} is revoked")


def rotate_uploads(
    session: Session,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the older keys are destroyed.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Longest wait.", min=0)] = 7_200.0,
) -> None:
    """Seal the project's uploads under a new key, in the background; older keys go when nothing needs them.

    They are destroyed an hour later at the earliest, for uploads and runs that had begun.
    """
    from atoll.cli.render import line

    made = session.client.rotate_uploads_key()
    line(f"{made.name} seals the uploads of project {session.project} from now on; see: atoll get datakeys")
    if wait:
        last = session.client.wait_for("DataKey", made.name, {"ready"}, timeout_s=timeout)
        line(f"{last.status['resealed']} uploads were sealed anew, older keys are destroyed")


def _print_made(session: Session, made: NewKey, output: str, said: str) -> None:
    from atoll.cli.render import note, print_json

    if output == "json":
        print_json({"id": made.id, "key": made.key})
        return
    note(f"{said}; keep the key, it is not shown again")
    sys.stdout.write(f"{made.key}\n")
