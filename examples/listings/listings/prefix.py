"""This file tells the application what the gateway takes off a path (`/listings`), so that `/docs`, links and redirects
lead back to where their reader is: the service, or one revision of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Call = Callable[..., Awaitable[Any]]


class BehindGateway:
    """An ASGI application that is asked below the prefix in `x-forwarded-prefix`; without one, as it is."""

    def __init__(self, app: Callable[[Scope, Call, Call], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Call, send: Call) -> None:
        """Answer one request."""
        prefix = dict(scope.get("headers", ())).get(b"x-forwarded-prefix", b"").decode("latin-1")
        if prefix:
            scope = {**scope, "root_path": prefix, "path": prefix + scope["path"]}
        await self.app(scope, receive, send)
