"""The border to parsers of others, which raise what they like."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from atoll.data.engine.read.item import Unloadable, Unreadable

REASON_CHARACTERS_MAX = 200


@contextmanager
def foreign(what: str) -> Iterator[None]:
    """Turn every error inside the block into Unreadable: the file is at fault, or its parser."""
    try:
        yield
    except (Unreadable, Unloadable):
        raise
    except MemoryError as error:
        raise Unreadable(f"the {what} takes more memory than its parser may have") from error
    except RecursionError as error:
        raise Unreadable(f"the {what} is nested too deep") from error
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # panics of parsers in Rust are no Exception
        words = " ".join(str(error).split())[:REASON_CHARACTERS_MAX]
        raise Unreadable(f"the {what} cannot be parsed: {words or type(error).__name__}") from error
