"""Running the server: its socket, its messages, its end."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from asr_kd.errors import UserError, first_line
from asr_kd.runtime.folder import RecogniserFiles

try:
    import uvicorn
    import websockets  # noqa: F401 - uvicorn cannot do without

    from asr_kd.serve.app import make_app
    from asr_kd.serve.listening import LARGEST_MESSAGE
    from asr_kd.serve.recognition import Limits, Recognition
except ImportError as error:
    raise UserError(
        f"the page needs the packages starlette, uvicorn and websockets ({first_line(error)}): pip install "
        "'asr_kd[serve]'."
    ) from None

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """The host and the port where the server listens; port 0 is any that is free."""

    host: str
    port: int

    @property
    def is_local(self) -> bool:
        """Whether only this computer reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def open(self) -> socket.socket:
        """Raises UserError where one cannot listen there."""
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
            listening = socket.socket(family, kind, protocol)
            with contextlib.ExitStack() as stack:
                stack.callback(listening.close)
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind(place)
                listening.listen()
                stack.pop_all()
            return listening
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise UserError(
                f"the server cannot listen at {self.host}, port {self.port} ({reason}); give another --host or --port "
                "(0 is any that is free)."
            ) from None


def serve(files: RecogniserFiles, address: Address, *, max_upload: int, echo: Callable[..., Any] = print) -> None:
    """Serves the page until Ctrl-C.

    Args:
      max_upload: bytes of a recording.
      echo: as click.echo; gets the page's address.

    Raises:
      UserError: the model cannot be loaded, or one cannot listen there.
    """
    with address.open() as listening:  # before the model is loaded, which takes longer
        recognition = Recognition(_bounded(files).load(), files.name, Limits(upload=max_upload))
        if not address.is_local:
            log.warning(
                "everybody who reaches %s can use this server, and what they say is sent unencrypted; browsers give a "
                "microphone only to pages from localhost or https",
                address.host,
            )
        host = f"[{address.host}]" if ":" in address.host else address.host
        echo(f"http://{host}:{listening.getsockname()[1]}")
        log.info("Ctrl-C ends")
        try:
            with contextlib.suppress(KeyboardInterrupt):
                make_server(recognition, address.host).run(sockets=[listening])
        finally:
            recognition.close()


def _bounded(files: RecogniserFiles) -> RecogniserFiles:
    """Returns the files of a recogniser with settings that allow no second search by wider beams.

    On a large graph such a search takes minutes, in which all others wait.
    """
    decoding = replace(files.settings.decoding, retry_beams=())
    return replace(files, settings=replace(files.settings, decoding=decoding))


def make_server(recognition: Recognition, host: str) -> uvicorn.Server:
    """uvicorn, which logs only errors, and takes no message that is larger than the largest block."""
    app = make_app(recognition, {host, socket.gethostname()})
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="error",
        access_log=False,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=64,
        ws_max_size=LARGEST_MESSAGE,
        ws_per_message_deflate=False,  # samples hardly become smaller, and a small message could become a large one
        ws_ping_interval=None,  # pongs wait behind blocks of samples; `Limits.patience` ends silent streams
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(config)
