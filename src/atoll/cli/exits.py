"""How a command ends: one line of error, one of hint, and an exit code a script can tell apart."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from atoll.core.errors import AtollError

FAILED = 1
BAD_INPUT = 2
UNREACHABLE = 3
UNAUTHORIZED = 4
INTERRUPTED = 130


class AtollGroup(TyperGroup):
    """A group of commands whose failures end in our own lines and exit codes."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command line; always ends with SystemExit, as the ordinary main does."""
        from atoll.core.errors import AtollError

        options["standalone_mode"] = False
        try:
            code = super().main(*args, **options)
        except AtollError as error:
            end_with(error)
        except OSError as error:
            end_with_file(error)
        except ModuleNotFoundError as error:
            end_with_package(error)
        except typer.Abort:
            sys.exit(INTERRUPTED)
        except typer.TyperException as error:
            end_with_usage(error)
        sys.exit(code if isinstance(code, int) else 0)


def end_with(error: AtollError) -> NoReturn:
    """Say what went wrong and how to go on, then exit by the kind of error."""
    say("error", error.message)
    if error.hint:
        say("hint", error.hint)
    sys.exit(code_of(error))


def end_with_file(error: OSError) -> NoReturn:
    """A file or folder of this machine that cannot be used; any other OSError is a mistake of ours, and goes on."""
    if error.filename is None or error.strerror is None:
        raise error
    from atoll.core.errors import Invalid

    hint = "name a place that is there, and that you may read and write"
    end_with(Invalid(f"{os.fsdecode(error.filename)}: {error.strerror}", hint=hint))


def end_with_package(error: ModuleNotFoundError) -> NoReturn:
    """A package of others that this installation lacks, and how to get it; any other module is a mistake of ours."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "atoll"):
        raise error
    from atoll.core.errors import Unavailable

    wanted = f"atoll[{extra}]" if (extra := extra_of(package)) else package
    end_with(Unavailable(f"the package {package} is not installed", hint=f"pip install '{wanted}'"))


def extra_of(package: str) -> str:
    """The first extra of this distribution that installs `package`; "" for none."""
    from importlib.metadata import requires

    for requirement in requires("atoll") or ():
        found = re.match(r"([\w.-]+)[^;]*;.*extra == [\"'](\w+)[\"']", requirement)
        if found and found[1].replace("-", "_").lower() == package.lower():
            return found[2]
    return ""


def end_with_usage(error: typer.TyperException) -> NoReturn:
    """A command line that cannot be understood."""
    message = error.format_message()
    if not message:  # the help was shown instead
        sys.exit(error.exit_code)
    say("error", message)
    context = getattr(error, "ctx", None)
    say("hint", f"see: {context.command_path if context else 'atoll'} --help")
    sys.exit(error.exit_code)


def code_of(error: AtollError) -> int:
    """The exit code of an error."""
    from atoll.core.errors import Forbidden, Invalid, TooLarge, Unauthorized
    from atoll.sdk.errors import Unreachable

    if isinstance(error, Unreachable):
        return UNREACHABLE
    if isinstance(error, (Unauthorized, Forbidden)):
        return UNAUTHORIZED
    if isinstance(error, (Invalid, TooLarge)):
        return BAD_INPUT
    return FAILED


def say(kind: str, text: str) -> None:
    """One line on standard error; the kind is red on a terminal."""
    from atoll.cli.render import clean

    is_coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    colour = {"error": "\x1b[31m", "hint": "\x1b[2m"}.get(kind, "") if is_coloured else ""
    reset = "\x1b[0m" if colour else ""
    sys.stderr.write(f"{colour}{kind}:{reset} {clean(text)}\n")
