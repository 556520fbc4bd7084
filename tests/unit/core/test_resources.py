"""Kinds: found by any of their names, specs completed, and refused with the field and the way out."""

from __future__ import annotations

import pytest
from pydantic import Field, model_validator

from atoll.core.errors import Invalid, NotFound
from atoll.core.resources import KINDS, Key, Kind, Kinds, Model, Resource, Spec, Status, check_name


class Wheel(Model):
    size: float = Field(1.0, gt=0)
    tyre: str = ""


class Axle(Model):
    wheels: list[Wheel] = Field(default_factory=list)


class CartSpec(Spec):
    colour: str
    axles: list[Axle] = Field(default_factory=list)
    spare: Wheel | None = None
    loads: dict[str, Wheel] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_axles(self) -> CartSpec:
        if self.colour == "red" and not self.axles:
            raise ValueError("a red cart needs axles")
        return self


CART = Kind("Cart", "carts", "A cart.", CartSpec, Status, private=frozenset({"colour"}))


def refusal(spec: dict[str, object]) -> Invalid:
    with pytest.raises(Invalid) as raised:
        CART.parse_spec(spec)
    return raised.value


def test_defaults_are_filled_in() -> None:
    assert CART.parse_spec({"colour": "blue", "axles": [{"wheels": [{}]}]}) == {
        "colour": "blue",
        "axles": [{"wheels": [{"size": 1.0, "tyre": ""}]}],
        "spare": None,
        "loads": {},
    }


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ({"colour": "b", "axels": []}, "spec.axels", "Cart has no field spec.axels (did you mean 'axles'?"),
        ({"colour": "b", "zzz": 1}, "spec.zzz", "valid: axles, colour, loads, spare"),
        ({}, "spec.colour", "Cart needs spec.colour (see: atoll explain cart.spec.colour)"),
        ({"colour": 3}, "spec.colour", "Cart spec.colour cannot be 3 (Input should be a valid string)"),
        ({"colour": "b", "axles": [{}, {"wheels": [{"sise": 2}]}]}, "spec.axles.1.wheels.0.sise", "mean 'size'"),
        ({"colour": "b", "axles": [{"wheels": [{"size": -1}]}]}, "spec.axles.0.wheels.0.size", "greater than 0"),
        ({"colour": "b", "spare": {"tire": "x"}}, "spec.spare.tire", "did you mean 'tyre'?"),
        ({"colour": "b", "loads": {"hay": {"tire": "x"}}}, "spec.loads.hay.tire", "valid: size, tyre"),
        ({"colour": "b", "axles": "two"}, "spec.axles", "cannot be 'two'"),
        ({"colour": "red"}, "spec", "Cart spec: a red cart needs axles"),
    ],
)
def test_a_wrong_spec_names_the_field_and_what_would_be_valid(spec: dict[str, object], field: str, words: str) -> None:
    error = refusal(spec)
    assert error.field == field
    assert words in str(error)


def test_an_error_never_shows_pages_of_a_value() -> None:
    assert len(str(refusal({"colour": "b", "axles": "x" * 1_000_000}))) < 500
    assert len(str(refusal({"colour": "b", "axles": [{"wheels": [{"size": "y" * 1_000_000}]}]}))) < 500
    error = refusal({"colour": "red", "loads": {f"n{n}": {} for n in range(9999)}})
    assert len(repr(error.to_dict())) < 500


def test_kinds_are_found_by_singular_plural_and_any_case() -> None:
    kinds = Kinds()
    kinds.register(CART)
    assert kinds.named("Cart") is kinds.named("carts") is kinds.named("CARTS") is CART
    assert "cart" in kinds
    assert list(kinds) == [CART]
    with pytest.raises(NotFound, match=r"there is no kind 'cats'.*nearest: carts"):
        kinds.named("cats")
    with pytest.raises(AssertionError):
        kinds.register(CART)


def test_private_fields_are_not_on_the_wire() -> None:
    if CART.name not in KINDS:
        KINDS.register(CART)
    fields = {"version": 1, "generation": 1, "labels": {}, "owner": None, "created_at": 0.0, "updated_at": 0.0}
    cart = Resource("Cart", "p", "n", "u", spec={"colour": "x", "a": 1}, status={}, deleting_at=1.0, **fields)  # type: ignore[arg-type]
    assert cart.to_dict()["spec"] == {"a": 1}
    assert cart.is_deleting
    assert cart.phase == "pending"


def test_the_default_project_goes_without_saying_in_a_key() -> None:
    assert str(Key("Cart", "default", "n")) == "Cart/n"
    assert str(Key("Cart", "red", "n")) == "Cart/red/n"


def test_names_are_checked() -> None:
    assert check_name("a.b-c.v1") == "a.b-c.v1"
    assert check_name("x" * 128)
    for name in ("", "A", "-a", "a-", "a_b", "x" * 129, "a\n"):
        with pytest.raises(Invalid, match="cannot be a name"):
            check_name(name)


def test_every_kind_of_the_product_describes_itself() -> None:
    from atoll.server import kinds

    assert kinds.DOMAINS
    for kind in KINDS:
        if kind.spec.__module__.startswith("atoll."):
            assert kind.description, kind.name
            for model in (kind.spec, kind.status):
                assert model.__doc__, model
                missing = [name for name, field in model.model_fields.items() if not field.description]
                assert missing == [], model
