"""All routers of the stateful OpenAI API, in the order they are asked."""

from __future__ import annotations

from atoll.server.openai import batches, conversations, files, fine_tuning, responses, uploads

ROUTERS = (
    files.router,
    uploads.router,
    batches.router,
    fine_tuning.router,
    conversations.router,
    responses.router,
    responses.gateway_router,
)
