"""Lists as OpenAI's clients page through them: newest first, `after` an id, at most `limit`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from atoll.core.errors import Invalid

T = TypeVar("T")
LIMIT_MAX = 100

After = Annotated[str, Query(description="Begin after the thing with this id.", max_length=200)]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="At most so many.")]
Order = Annotated[Literal["asc", "desc"], Query(description="By time of creation.")]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
"""Notes of the client: up to 16 texts."""


class Page(BaseModel):
    """One page of a list."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]] = Field(description="The things.")
    first_id: str | None = Field(None, description="Id of the first.")
    last_id: str | None = Field(None, description="Id of the last: the `after` of the next page.")
    has_more: bool = Field(description="Whether there is a next page.")


def cut(items: Iterable[T], id_of: Callable[[T], str], after: str, limit: int) -> tuple[list[T], bool]:
    """The page of `items` (in their order) after the one called `after`, and whether more follow."""
    found = list(items)
    begin = 0
    if after:
        begin = next((i + 1 for i, item in enumerate(found) if id_of(item) == after), -1)
        if begin < 0:
            raise Invalid(f"after: there is no {after!r} in this list", field="after")
    return found[begin : begin + limit], len(found) > begin + limit


def page(objects: list[dict[str, Any]], has_more: bool) -> Page:
    """The page of these objects."""
    first, last = (objects[0]["id"], objects[-1]["id"]) if objects else (None, None)
    return Page(data=objects, first_id=first, last_id=last, has_more=has_more)
