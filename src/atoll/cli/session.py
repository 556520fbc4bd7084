"""What every command shares: the global options, the client, and how a command is declared.

Modules of the CLI import only the standard library and typer at their top; everything heavier is imported
by the command that needs it, so that `atoll --help` stays instant.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

if TYPE_CHECKING:
    from atoll.sdk.client import Client
    from atoll.sdk.credentials import Credentials

P = ParamSpec("P")

GLOBAL_PANEL = "Global options"

Home = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of this machine's state and credentials.", rich_help_panel=GLOBAL_PANEL),
]
Address = Annotated[
    str | None, typer.Option("--address", help="Address of the platform.", rich_help_panel=GLOBAL_PANEL)
]
ApiKey = Annotated[str | None, typer.Option("--key", help="API key to use.", rich_help_panel=GLOBAL_PANEL)]
Project = Annotated[
    str | None, typer.Option("--project", "-p", help="Project to work in.", rich_help_panel=GLOBAL_PANEL)
]
_GLOBALS: dict[str, Any] = {"home": Home, "address": Address, "key": ApiKey, "project": Project}


@dataclass(slots=True)
class Session:
    """One run of a command: what was asked for globally, and a client made when first needed.

    has_process: the process was started for it, and ends with it.
    """

    home_given: Path | None = None
    address_given: str | None = None
    key_given: str | None = None
    project_given: str | None = None
    has_process: bool = False
    _client: Client | None = field(default=None, repr=False)

    @property
    def home(self) -> Path:
        """The home folder in force."""
        return (self.home_given or Path(os.environ.get("ATOLL_HOME") or "~/.atoll")).expanduser().resolve()

    @property
    def client(self) -> Client:
        """The client for the credentials in force."""
        if self._client is None:
            from atoll.sdk.client import Client

            self._client = Client.connect(self.credentials())
        return self._client

    @property
    def project(self) -> str:
        """The project in force."""
        return self.client.project

    def credentials(self) -> Credentials:
        """Address, project and key in force; warns when others may read the file they are in."""
        from atoll.sdk.credentials import credentials_path, is_private, resolve_credentials

        path = credentials_path(self.home)
        if not is_private(path):
            sys.stderr.write(f"warning: others may read {path}; close it with: chmod 600 {path}\n")
        return resolve_credentials(
            self.home, address=self.address_given, project=self.project_given, key=self.key_given
        )

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def overridden(self, given: dict[str, Any]) -> Session:
        """This session with the options given after the command's name."""
        return replace(self, **{f"{name}_given": value for name, value in given.items() if value is not None})


def command(
    app: typer.Typer, name: str, *, panel: str | None = None, examples: Sequence[str], no_args_is_help: bool = False
) -> Callable[[Callable[Concatenate[Session, P], None]], Callable[Concatenate[Session, P], None]]:
    """Declare a command: its function takes the Session first; the global options are added to its own.

    The docstring is the help, the examples close it.
    """

    def declare(function: Callable[Concatenate[Session, P], None]) -> Callable[Concatenate[Session, P], None]:
        epilog = "Examples:\n\n" + "\n".join(f"  {_unmarked(line)}" for line in examples)
        help_text = _unmarked(paragraphs(function.__doc__ or ""))
        app.command(name, help=help_text, epilog=epilog, rich_help_panel=panel, no_args_is_help=no_args_is_help)(
            _with_globals(function)
        )
        return function

    return declare


def _with_globals(function: Callable[Concatenate[Session, P], None]) -> Callable[..., None]:
    own = inspect.signature(function, eval_str=True)
    parameters = [
        inspect.Parameter("run_context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *list(own.parameters.values())[1:],
        *(_global(name, hint) for name, hint in _GLOBALS.items() if name not in own.parameters),
    ]

    def invoke(run_context: typer.Context, **options: Any) -> None:
        given = {name: options.pop(name) for name in _GLOBALS if name in options}
        base: Session = run_context.find_object(Session) or Session()
        session = base.overridden(given)
        try:
            function(session, **options)  # type: ignore[call-arg]
        finally:
            session.close()

    functools.update_wrapper(invoke, function)
    del invoke.__wrapped__  # type: ignore[attr-defined]  # else its signature would be the function's
    invoke.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    invoke.__annotations__ = {p.name: p.annotation for p in parameters}
    return invoke


def _global(name: str, hint: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)


def paragraphs(docstring: str) -> str:
    """A docstring with the lines of each paragraph joined; the terminal breaks them anew."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(docstring).split("\n\n"))


def _unmarked(text: str) -> str:
    """Brackets are text here, not Rich's markup."""
    return text.replace("[", "\\[")
