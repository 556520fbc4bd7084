"""One HTTP connection pool to one address: JSON in and out, streams, and every failure a typed error.

Knows nothing of resources. Never retries: what may be repeated is known further up.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from atoll.core.errors import (
    AtollError,
    CapacityError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    RateLimited,
    TooLarge,
    Unauthorized,
    Unavailable,
    error_from_dict,
)
from atoll.sdk.errors import Unreachable

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
STREAM_SILENCE_MAX_S = 45.0
"""The server writes a comment every 10 s into an event stream; silence this long means it is gone."""

_BY_STATUS: dict[int, type[AtollError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: CapacityError,
    429: RateLimited,
    503: Unavailable,
}


class Connection:
    """HTTP to `address` with `key`; `transport` replaces the network (an ASGI or WSGI application, say)."""

    def __init__(self, address: str, key: str = "", *, transport: httpx.BaseTransport | None = None) -> None:
        self.address = checked_address(address)
        headers = {"User-Agent": "atoll-sdk", **({"Authorization": f"Bearer {key}"} if key else {})}
        self._http = httpx.Client(
            base_url=self.address,
            headers=headers,
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            transport=transport or _transport(self.address),
            trust_env=not _is_loopback(self.address),
        )

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """The JSON answer, or the error the server gave."""
        return self._asked(method, path, params=_given(params), json=body)

    def send(self, method: str, path: str, data: bytes, headers: Mapping[str, str]) -> Any:
        """The JSON answer to a body of bytes."""
        return self._asked(method, path, content=data, headers=dict(headers))

    def fetch(self, path: str, *, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """The whole answer to a GET, its bytes in `content`."""
        with self._named_failures():
            response = self._http.get(path, headers=dict(headers or {}))
        if response.is_error:
            raise error_from_response(self.address, response)
        return response

    def _asked(self, method: str, path: str, **given: Any) -> Any:
        with self._named_failures():
            response = self._http.request(method, path, **given)
        if response.is_error:
            raise error_from_response(self.address, response)
        return self._json(response)

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        silence_max_s: float | None = STREAM_SILENCE_MAX_S,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[httpx.Response]:
        """An answer still on its way; read it inside the block. Silence longer than `silence_max_s` is Unreachable."""
        timeout = httpx.Timeout(silence_max_s, connect=CONNECT_TIMEOUT_S)
        with (
            self._named_failures(),
            self._http.stream(
                method, path, params=_given(params), json=body, timeout=timeout, headers=dict(headers or {})
            ) as response,
        ):
            if response.is_error:
                response.read()
                raise error_from_response(self.address, response)
            yield response

    @contextmanager
    def _named_failures(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise Unreachable(
                f"cannot reach Atoll at {self.address}: {why}",
                hint="is it running? start it with: atoll up; another address: --address or ATOLL_ADDRESS",
                address=self.address,
            ) from error

    def _json(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError as error:
            raise _stranger(self.address, response) from error


def checked_address(address: str) -> str:
    """`address` as http://host:port without a slash at its end; a missing scheme is http."""
    full = address if "://" in address else f"http://{address}"
    if not _is_address(full):
        raise Invalid(
            f"address cannot be {address!r}", field="address", hint="a URL such as http://127.0.0.1:8400", value=address
        )
    return full.rstrip("/")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def error_from_response(address: str, response: httpx.Response) -> AtollError:
    """The error in an answer: Atoll's own shape, OpenAI's shape, or a stranger's."""
    try:
        body = response.json()
    except ValueError:
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return _stranger(address, response)
    if "details" in error:
        return error_from_dict(error)
    return openai_error(error, response.status_code, response.headers.get("retry-after"))


def openai_error(error: Mapping[str, Any], status: int, retry_after: str | None = None) -> AtollError:
    """An error of OpenAI's shape ({"message", "type", "param", "code"}) as ours, by its HTTP status."""
    kind = _BY_STATUS.get(status, AtollError)
    message = str(error.get("message") or f"HTTP {status}")
    hint = str(error.get("hint") or "")
    if issubclass(kind, Invalid):
        return kind(message, field=str(error.get("param") or ""), hint=hint)
    if issubclass(kind, (RateLimited, Unavailable)):
        return kind(message, hint=hint, retry_after_s=_seconds(retry_after))
    return kind(message, hint=hint)


def _stranger(address: str, response: httpx.Response) -> AtollError:
    kind = _BY_STATUS.get(response.status_code, AtollError)
    content = response.headers.get("content-type", "no content type")
    return kind(
        f"{address} answered {response.request.method} {response.request.url.path} with HTTP {response.status_code}"
        f" ({content}), not as Atoll does",
        hint="is this the address of Atoll, and of the same version?",
    )


def _seconds(retry_after: str | None) -> float:
    try:
        return float(retry_after or 1.0)
    except ValueError:
        return 1.0


def _given(params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {k: v for k, v in params.items() if v not in (None, "")} if params else None


def _is_loopback(address: str) -> bool:
    return urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1")


def _transport(address: str) -> httpx.BaseTransport | None:
    """Plain HTTP to this machine needs neither proxies nor certificates, whose loading costs 30 ms."""
    if not _is_loopback(address) or address.startswith("https"):
        return None
    return httpx.HTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
