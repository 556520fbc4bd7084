"""`members` and `users`: who the people are, and what they are in a project."""

from __future__ import annotations

from typing import Annotated

import typer

from atoll.cli.session import Session, command

Name = Annotated[str, typer.Argument(help="Name of the user.", metavar="USER")]
Output = Annotated[str, typer.Option("--output", "-o", help="table, json or yaml.")]


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the commands."""
    group = typer.Typer(help="Add, list and remove the members of a project.", no_args_is_help=True)
    command(group, "add", examples=["atoll members add ada --role owner", "atoll members add bob -p web"])(add)
    command(group, "list", examples=["atoll members list", "atoll members list -o json"])(list_members)
    command(group, "remove", examples=["atoll members remove bob"])(remove)
    app.add_typer(group, name="members", rich_help_panel=panel)
    group = typer.Typer(help="Create, list and disable users; for administrators.", no_args_is_help=True)
    examples = ["atoll users create ada --display-name 'Ada L.' --email ada@example.org"]
    command(group, "create", examples=examples)(create_user)
    command(group, "list", examples=["atoll users list"])(list_users)
    command(group, "disable", examples=["atoll users disable bob"])(disable_user)
    command(group, "enable", examples=["atoll users enable bob"])(enable_user)
    app.add_typer(group, name="users", rich_help_panel=panel)


def add(
    session: Session,
    user: Name,
    role: Annotated[str, typer.Option("--role", help="owner, member or viewer.")] = "member",
) -> None:
    """Make a user a member of the project, or give the member another role; for owners of the project."""
    from atoll.cli.render import line, note

    session.client.put("Membership", user, {"role": role})
    line(f"{user} is {role} of {session.project}")
    if _is_unknown(session, user):
        note(f"there is no user {user} yet: atoll users create {user}")


def _is_unknown(session: Session, user: str) -> bool:
    """Whether there is no such user; false too where only administrators could say."""
    from atoll.core.errors import Forbidden

    try:
        return session.client.find("User", user) is None
    except Forbidden:
        return False


def list_members(session: Session, output: Output = "table") -> None:
    """List the members of the project and their roles."""
    _print(session, "Membership", output)


def remove(session: Session, user: Name) -> None:
    """End a membership: all keys of the user are refused in this project from now on."""
    from atoll.cli.render import line

    session.client.delete("Membership", user)
    line(f"{user} is no longer a member of {session.project}")


def create_user(
    session: Session,
    user: Name,
    display_name: Annotated[str | None, typer.Option("--display-name", help="Name shown to people.")] = None,
    email: Annotated[str | None, typer.Option("--email", help="Where to reach the user.")] = None,
) -> None:
    """Make a user, or change the names of one; what users may do is said by memberships."""
    from atoll.cli.render import line

    found = session.client.find("User", user)
    given = {"display_name": display_name, "email": email}
    spec = {**(found.spec if found else {}), **{name: value for name, value in given.items() if value is not None}}
    session.client.put("User", user, spec)
    line(f"user {user} is {'changed' if found else 'made'}; next: atoll members add {user}")


def list_users(session: Session, output: Output = "table") -> None:
    """List all users of the platform."""
    _print(session, "User", output)


def disable_user(session: Session, user: Name) -> None:
    """Refuse all keys of a user from now on; memberships and usage stay on record."""
    _set_disabled(session, user, disabled=True)


def enable_user(session: Session, user: Name) -> None:
    """Let a disabled user's keys work again, those that are neither revoked nor expired."""
    _set_disabled(session, user, disabled=False)


def _set_disabled(session: Session, user: str, *, disabled: bool) -> None:
    from atoll.cli.render import line

    found = session.client.get("User", user)
    session.client.put("User", user, {**found.spec, "disabled": disabled}, version=found.version)
    line(f"user {user} is {'disabled' if disabled else 'enabled'}")


def _print(session: Session, kind: str, output: str) -> None:
    from atoll.cli.get import get

    get(session, kind, None, output)
