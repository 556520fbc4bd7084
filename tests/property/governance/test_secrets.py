"""Whatever is sealed opens as it was, in its own place, and nowhere else and not changed."""

from __future__ import annotations

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.errors import IntegrityError
from atoll.governance.secrets import Secrets

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=200)
VALUES = st.dictionaries(NAMES, TEXTS, min_size=1, max_size=5)
SECRETS = Secrets([os.urandom(32)])


@given(NAMES, NAMES, VALUES)
def test_what_is_sealed_opens_as_it_was(project: str, name: str, values: dict[str, str]) -> None:
    assert SECRETS.open(project, name, SECRETS.seal(project, name, values)) == values


@given(NAMES, NAMES, NAMES, NAMES, VALUES)
def test_what_is_moved_does_not_open(
    project: str, name: str, other_project: str, other_name: str, values: dict[str, str]
) -> None:
    sealed = SECRETS.seal(project, name, values)
    if (project, name) != (other_project, other_name):
        with pytest.raises(IntegrityError):
            SECRETS.open(other_project, other_name, sealed)


@given(VALUES, st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_is_seen(values: dict[str, str], place: int, flip: int) -> None:
    data = bytearray(base64.b64decode(SECRETS.seal("red", "api", values)))
    data[place % len(data)] ^= flip
    with pytest.raises(IntegrityError):
        SECRETS.open("red", "api", base64.b64encode(data).decode())


@given(VALUES, st.integers(0, 10_000))
def test_any_missing_end_is_seen(values: dict[str, str], length: int) -> None:
    data = base64.b64decode(SECRETS.seal("red", "api", values))
    with pytest.raises(IntegrityError):
        SECRETS.open("red", "api", base64.b64encode(data[: length % len(data)]).decode())


@given(st.text(max_size=80))
def test_any_text_that_was_not_sealed_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        SECRETS.open("red", "api", text)
