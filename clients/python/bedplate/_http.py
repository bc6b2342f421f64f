"""HTTP to the server: over its Unix socket, or over loopback with the token."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ._errors import BedplateError, Diverged, Unreachable

#: How long one answer may take to go on, in seconds: longer than the server's heartbeat and waits.
TIMEOUT_S = 90.0
#: Between two attempts, in seconds.
PAUSE_S = 0.05
#: The connection, or a process behind it, is gone: nobody knows what became of the request.
LOST = (OSError, http.client.HTTPException)
#: Refusals that another attempt may not meet: no owner just now, too many connections.
PASSING = ("BP-OWNER-002", "BP-OWNER-003", "BP-SERVE-008")


class _UnixConnection(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Transport:
    """Where the server is, and how it is asked."""

    def __init__(
        self,
        home: str | os.PathLike[str] | None,
        socket_path: str | os.PathLike[str] | None,
        url: str | None,
        token: str | None,
        patience: float,
    ) -> None:
        self._home = os.fspath(home) if home is not None else _default_home()
        self._socket = os.fspath(socket_path or os.path.join(self._home, "serve.sock"))
        self._url = url
        self._token = token
        self.patience = patience

    def _connection(self) -> tuple[http.client.HTTPConnection, dict[str, str]]:
        if self._url is None:
            return _UnixConnection(self._socket), {}
        parts = urlsplit(self._url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{self._url} is not http://HOST:PORT")
        token = self._token
        if token is None:
            # It is new with each start of the server, so it is read for each request.
            with open(os.path.join(self._home, "serve.token"), encoding="ascii") as file:
                token = file.read().strip()
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)
        return connection, {"Authorization": f"Bearer {token}"}

    def open(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = {}
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """One request: of bytes as they are, of anything else as JSON. The caller closes the
        connection."""
        connection, head = self._connection()
        head = {"Connection": "close", **head, **headers}
        data = None
        if isinstance(body, bytes):
            data = body
            head["Content-Type"] = "application/octet-stream"
        elif body is not None:
            data = json.dumps(body).encode()
            head["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body=data, headers=head)
            response = connection.getresponse()
            if response.status >= 400:
                raise _error(response.status, response.read())
        except BaseException:
            connection.close()
            raise
        return connection, response

    def ask(self, method: str, path: str, body: Any = None, again: bool = False) -> Any:
        """One request for a JSON document; asked again, when that is safe."""
        return json.loads(self._whole(method, path, body, again))

    def read(self, path: str, headers: Mapping[str, str] = {}) -> bytes:
        """One request for bytes."""
        return self._whole("GET", path, None, True, headers)

    def _whole(
        self, method: str, path: str, body: Any, again: bool, headers: Mapping[str, str] = {}
    ) -> bytes:
        patience = Patience(self.patience if again else 0.0)
        while True:
            try:
                connection, response = self.open(method, path, body, headers)
                try:
                    return response.read()
                finally:
                    connection.close()
            except (BedplateError, *LOST) as error:
                patience.after(error)


class Patience:
    """How long what is gone for now is tried again."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def after(self, error: Exception) -> None:
        """Pauses before another attempt, or gives up."""
        if isinstance(error, BedplateError) and error.code not in PASSING:
            raise error
        if time.monotonic() >= self._until:
            if isinstance(error, BedplateError):
                raise error
            raise Unreachable(f"no answer from the server: {error}") from error
        time.sleep(PAUSE_S)


def _error(status: int, body: bytes) -> BedplateError:
    try:
        told = json.loads(body)["error"]
        code, message = str(told["code"]), str(told["message"])
    except (ValueError, KeyError, TypeError):
        return BedplateError(status, "", body[:200].decode(errors="replace"))
    kind = Diverged if code == "BP-SERVE-009" else BedplateError
    return kind(status, code, message, str(told.get("next", "")))


def _default_home() -> str:
    named = os.environ.get("BEDPLATE_HOME")
    if named:
        return named
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(data, "bedplate")
