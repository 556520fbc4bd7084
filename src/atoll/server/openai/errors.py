"""Errors as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}}; for /v1 routes only."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from atoll.core.errors import AtollError

PREFIX = "/v1/"
_TYPES = {401: "authentication_error", 403: "permission_error", 409: "conflict_error", 429: "rate_limit_error"}
_CODES = {"unauthorized": "invalid_api_key", "internal": "server_error"}


class ErrorFields(BaseModel):
    """What went wrong."""

    message: str = Field(description="For people.")
    type: str = Field(description="Family of the error.")
    param: str | None = Field(description="The parameter that is wrong.")
    code: str | None = Field(description="For programs.")


class ErrorBody(BaseModel):
    """The body of every answer that is not 2xx."""

    error: ErrorFields


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": words}
    for status, words in {
        400: "A parameter is wrong.",
        401: "No API key, or a wrong one.",
        403: "The key may not do this.",
        404: "There is no such thing in the project.",
        409: "It changed meanwhile, or is not in a state for this.",
        413: "Over a limit.",
        422: "A parameter is wrong.",
        503: "Try again.",
    }.items()
}
"""What every route may answer; for the OpenAPI document."""


def is_ours(request: Request) -> bool:
    """Whether the request's errors have OpenAI's form."""
    return request.url.path.startswith(PREFIX)


def respond(error: AtollError) -> Response:
    """The error on the wire."""
    retry_after_s = getattr(error, "retry_after_s", None)
    headers = None if retry_after_s is None else {"Retry-After": f"{max(1, round(retry_after_s))}"}
    return JSONResponse({"error": error_fields(error)}, error.http_status, headers)


def error_fields(error: AtollError) -> dict[str, Any]:
    """The fields of an error."""
    status = error.http_status
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    code = str(error.details.get("code") or _CODES.get(error.code, error.code))
    return {"message": str(error), "type": kind, "param": error.details.get("field") or None, "code": code}
