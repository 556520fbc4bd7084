"""Importing this module registers every kind of the product."""

from __future__ import annotations

from atoll.compute import resources as compute
from atoll.core.resources import KINDS
from atoll.data import curation, erasure, files, imports, quality, synthesis
from atoll.data import resources as data
from atoll.data.labelling import resources as labelling
from atoll.governance import resources as governance
from atoll.models import resources as models
from atoll.serving import batches
from atoll.serving import resources as serving
from atoll.training import resources as training

DOMAINS = (
    *(governance, compute),
    *(data, curation, files, imports, erasure, quality, labelling, synthesis),
    *(models, training, serving, batches),
)

__all__ = ["DOMAINS", "KINDS"]
