"""The server's addresses: the page and its files, what the recogniser is, recordings, streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from asr_kd.serve.listening import MOST_SAMPLES, listen
from asr_kd.serve.recognition import Recognition
from asr_kd.serve.refusal import Refusal, answer_refusal
from asr_kd.serve.same_origin import SameOrigin
from asr_kd.serve.uploads import transcribe, write

_PAGE = Path(__file__).parent / "page"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def make_app(recognition: Recognition, names: Collection[str] = ()) -> Starlette:
    """The application.

    Args:
      names: see `SameOrigin`.
    """
    app = Starlette(
        routes=[
            *(Route(_address(path), _file(path)) for path in sorted(_PAGE.iterdir()) if path.suffix in _KINDS),
            Route("/info", info),
            Route("/transcribe", transcribe, methods=["POST"]),
            Route("/write", write, methods=["POST"]),
            WebSocketRoute("/stream", listen),
        ],
        middleware=[Middleware(SameOrigin, names=names)],
        exception_handlers={Refusal: answer_refusal, ClientDisconnect: _answer_nobody},
    )
    app.state.recognition = recognition
    return app


async def _answer_nobody(request: Request, error: Exception) -> Response:
    """Who asked has left."""
    return Response(status_code=400)


def _address(path: Path) -> str:
    return "/" if path.name == "index.html" else f"/{path.name}"


def _file(path: Path) -> Callable[[Request], Awaitable[Response]]:
    content, kind = path.read_bytes(), _KINDS[path.suffix]

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


async def info(request: Request) -> JSONResponse:
    """What the page must know."""
    recognition: Recognition = request.app.state.recognition
    return JSONResponse(
        {
            "model": recognition.name,
            "sampling_rate": recognition.recogniser.sampling_rate,
            "max_upload": recognition.limits.upload,
            "max_block": MOST_SAMPLES,
        }
    )
