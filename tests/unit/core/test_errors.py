"""Every error survives its journey over the wire."""

from __future__ import annotations

import pytest

from atoll.core import errors
from atoll.core.errors import AtollError, Invalid, RateLimited, error_from_dict

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, AtollError) and not kind.__name__.startswith("_")
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_comes_back_as_what_it_was(kind: type[AtollError]) -> None:
    error = kind("it broke", hint="mend it", uids=["a"], message_id=3)
    again = error_from_dict(error.to_dict())
    assert type(again) is kind
    assert again.to_dict() == error.to_dict()
    assert str(again) == "it broke (mend it)"
    assert again.http_status == kind.http_status


def test_codes_and_the_tree_in_the_module_agree() -> None:
    assert len({kind.code for kind in KINDS}) == len(KINDS)
    for kind in KINDS:
        assert f"{kind.__name__}" in (errors.__doc__ or "")


def test_what_an_error_carries_comes_back_too() -> None:
    again = error_from_dict(Invalid("wrong", field="spec.cpu").to_dict())
    assert isinstance(again, Invalid)
    assert again.field == "spec.cpu"
    later = error_from_dict(RateLimited("slow down", retry_after_s=7).to_dict())
    assert isinstance(later, RateLimited)
    assert later.retry_after_s == 7


def test_a_stranger_is_a_plain_error() -> None:
    again = error_from_dict({"code": "martian", "message": "?", "details": {"self": 1, "hint": 2, "message": 3}})
    assert type(again) is AtollError
    assert str(again) == "?"
    assert str(error_from_dict({})) == "unknown error"
    assert error_from_dict({"code": "invalid", "details": None}).details == {"field": ""}
