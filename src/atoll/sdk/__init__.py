"""The Python client of Atoll's API, its credentials file and its manifests.

    from atoll.sdk import Client, resolve_credentials

    with Client.connect(resolve_credentials()) as atoll:
        for deployment in atoll.find_all("Deployment").items:
            print(deployment.name, deployment.phase)

Knows the API only over HTTP; it never opens the store. Names are loaded when first used, so that a command
that needs no network does not pay for one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atoll.sdk.chat import ChatPiece
    from atoll.sdk.client import Client
    from atoll.sdk.credentials import Credentials, resolve_credentials
    from atoll.sdk.errors import TimedOut, Unreachable
    from atoll.sdk.manifest import Manifest, read_manifests
    from atoll.sdk.wire import Change, Event, KindInfo, Listing, Tree, UsageRow, WatchEvent

_HOMES = {
    "Change": "wire",
    "ChatPiece": "chat",
    "Client": "client",
    "Credentials": "credentials",
    "Event": "wire",
    "KindInfo": "wire",
    "Listing": "wire",
    "Manifest": "manifest",
    "TimedOut": "errors",
    "Tree": "wire",
    "Unreachable": "errors",
    "UsageRow": "wire",
    "WatchEvent": "wire",
    "read_manifests": "manifest",
    "resolve_credentials": "credentials",
}

__all__ = [
    "Change",
    "ChatPiece",
    "Client",
    "Credentials",
    "Event",
    "KindInfo",
    "Listing",
    "Manifest",
    "TimedOut",
    "Tree",
    "Unreachable",
    "UsageRow",
    "WatchEvent",
    "read_manifests",
    "resolve_credentials",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
