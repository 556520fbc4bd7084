"""The management API as one FastAPI application over a Centre."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from atoll import __version__
from atoll.core.errors import AtollError, Invalid, NotFound
from atoll.server import (
    agents,
    api,
    blobs,
    data_keys,
    datasets,
    gateways,
    keys,
    labels,
    loads,
    logs,
    money,
    plan,
    secrets,
)
from atoll.server.centre import Centre
from atoll.server.openai import errors as openai_errors
from atoll.server.openai.routes import ROUTERS
from atoll.server.wait import Waiter

log = logging.getLogger(__name__)


def make_app(centre: Centre) -> FastAPI:
    """The application; its start and end start and stop the centre."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.waiter.attach(asyncio.get_running_loop())
        await asyncio.to_thread(centre.start)
        yield
        app.state.waiter.stop()
        await asyncio.to_thread(centre.stop)

    app = FastAPI(
        title="Atoll",
        version=__version__,
        description="Management API: resources with spec and status, events, logs, keys, usage.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.centre = centre
    app.state.waiter = Waiter(centre.feed)
    app.state.demands = logs.Demands(app.state.waiter)
    for module in (keys, secrets, data_keys, blobs, datasets, labels, logs, agents, gateways, loads, money, plan, api):
        app.include_router(module.router)
    for router in ROUTERS:
        app.include_router(router)
    _errors(app)
    _plain_routes(app, centre)
    return app


def _errors(app: FastAPI) -> None:
    def _say(request: Request, error: AtollError) -> Response:
        return openai_errors.respond(error) if openai_errors.is_ours(request) else error_response(error)

    @app.exception_handler(AtollError)
    async def _of_ours(request: Request, error: AtollError) -> Response:
        return _say(request, error)

    @app.exception_handler(RequestValidationError)
    async def _of_a_body(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part != "body")
        return _say(request, Invalid(f"{field}: {first['msg']}", field=field))

    @app.exception_handler(404)
    async def _of_a_path(request: Request, _: Exception) -> Response:
        return _say(request, NotFound(f"there is nothing at {request.url.path}", hint="see /api/v1/openapi.json"))

    @app.exception_handler(HTTPException)
    async def _of_the_framework(request: Request, error: HTTPException) -> Response:
        refused = AtollError(f"{request.method} {request.url.path}: {error.detail}")
        refused.code, refused.http_status = "refused", error.status_code
        refusal = _say(request, refused)
        refusal.headers.update(error.headers or {})
        return refusal

    @app.exception_handler(Exception)
    async def _of_a_bug(request: Request, error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return _say(request, AtollError("internal error; the server's log has the traceback"))


def error_response(error: AtollError) -> Response:
    """The error on the wire."""
    retry_after_s = getattr(error, "retry_after_s", None)
    headers = None if retry_after_s is None else {"Retry-After": f"{max(1, round(retry_after_s))}"}
    return JSONResponse({"error": error.to_dict()}, error.http_status, headers)


def _plain_routes(app: FastAPI, centre: Centre) -> None:
    @app.get("/healthz")
    def healthz() -> dict[str, Any]:
        """Answers when the store answers."""
        return {"status": "ok", "version": __version__, "head": centre.store.head()}

    @app.get("/api/v1/metrics")
    def metrics() -> Response:
        """The server's own metrics, for Prometheus."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
