"""The example's manifests are what the kinds accept."""

from __future__ import annotations

from pathlib import Path

import atoll.governance.resources
import atoll.serving.resources
from atoll.core.resources import KINDS
from atoll.sdk.manifest import read_manifests

EXAMPLE = Path(__file__).parents[3] / "examples" / "03-serving" / "serving.yaml"


def test_every_manifest_of_the_example_is_accepted() -> None:
    assert atoll.serving.resources.DEPLOYMENT.name in KINDS
    assert atoll.governance.resources.PRICE.name in KINDS
    found = read_manifests(str(EXAMPLE))
    assert [m.kind for m in found] == ["Deployment", "Price", "Provider", "Route"]
    for manifest in found:
        assert KINDS.named(manifest.kind).parse_spec(manifest.spec)
