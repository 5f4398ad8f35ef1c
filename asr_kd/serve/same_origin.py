"""Only pages of this server may use it: any page that a browser shows can send requests to this computer.

The header Host must be an address or a name of this server, else a page could reach it by a name of its own that it
lets point here (DNS rebinding). The header Origin, which browsers send with WebSockets and POST, must be the same host.
Programs that are no browsers send no Origin.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from asr_kd.serve.refusal import Reason

_ANSWER_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class SameOrigin:
    """Refuses what comes from another page, and adds the headers that bind this one.

    Args:
      names: hosts of the server beside addresses and localhost.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] = ()) -> None:
        self._app, self._names = app, {name.lower() for name in names} | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        sentence = self._objection(Headers(scope=scope))
        if scope["type"] == "websocket":
            refuse = WebSocketClose(Reason.FORBIDDEN.code, sentence)
            await (refuse if sentence else self._app)(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_ANSWER_HEADERS)
            await send(message)

        answer = JSONResponse({"error": sentence}, Reason.FORBIDDEN.status) if sentence else self._app
        await answer(scope, receive, send_with_headers)

    def _objection(self, headers: Headers) -> str | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        name = _host_name(f"//{host}")
        if name not in self._names and not _is_address(name):
            return "this name is not the server's: open the page at localhost, an address, or the name given to --host."
        if origin is not None and (_host_name(origin) is None or urlsplit(origin).netloc.lower() != host.lower()):
            return "this comes from another page: only the server's own page may use it."
        return None


def _host_name(url: str) -> str | None:
    """
    >>> _host_name("//[::1]:8000"), _host_name("http://LOCALHOST"), _host_name("null"), _host_name("//[")
    ('::1', 'localhost', None, None)
    """
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_address(name: str | None) -> bool:
    try:
        ipaddress.ip_address(name or "")
    except ValueError:
        return False
    return True
