"""Moderations come from a policy engine; while there is none, that is what the endpoint says."""

from __future__ import annotations

from typing import NoReturn

from atoll.core.errors import AtollError
from atoll.serving.gateway.dialects.expect import check_parameters, read_object, require
from atoll.serving.gateway.dialects.order import Endpoint, Headers


class NotImplementedYet(AtollError):
    """501: the route is known, what would answer it is not there."""

    code = "not_implemented"
    http_status = 501


def read_moderation(endpoint: Endpoint, data: bytes, headers: Headers) -> NoReturn:
    fields = read_object(data)
    check_parameters(endpoint.parameters, fields)
    require(fields, "input")
    raise NotImplementedYet(
        "There is no policy engine here, so nothing can be moderated.",
        hint="Deploy a model that classifies, and ask it at /v1/chat/completions or /v2/models/NAME/infer.",
    )
