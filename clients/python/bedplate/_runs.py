"""Runs."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from ._errors import BedplateError
from ._http import LOST, Patience, Transport


class Run:
    """A run, by its id."""

    def __init__(self, transport: Transport, run: str) -> None:
        self._transport = transport
        self.id = run

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    def _path(self, rest: str = "") -> str:
        return f"/v1/runs/{quote(self.id, safe='')}{rest}"

    def get(self) -> dict[str, Any]:
        """The run now: status, output, artifacts, what it cost."""
        document: dict[str, Any] = self._transport.ask("GET", self._path(), again=True)
        return document

    def wait(self) -> dict[str, Any]:
        """The run when it has ended."""
        for _ in self.events():
            pass
        return self.get()

    def events(self, start: int = 0, follow: bool = True) -> Iterator[dict[str, Any]]:
        """Its records from number `start` on, as they come, each once and none left out, whatever
        is cut off in between; to the run's end, or to the end of now."""
        after, patience = start, Patience(self._transport.patience)
        while True:
            path = f"/events?from={after}&follow={'true' if follow else 'false'}"
            try:
                connection, response = self._transport.open("GET", self._path(path))
            except (BedplateError, *LOST) as error:
                patience.after(error)
                continue
            try:
                for kind, data in events_of(response):
                    if kind == "end":
                        return
                    record: dict[str, Any] = json.loads(data)
                    after, patience = record["seq"] + 1, Patience(self._transport.patience)
                    yield record
            except LOST as error:
                patience.after(error)
            finally:
                connection.close()

    def send(self, text: str) -> None:
        """Gives it new instructions."""
        self._transport.ask("POST", self._path("/send"), {"text": text})

    def signal(self, name: str, payload: Any = None) -> None:
        """Sends the signal it waits for."""
        self._transport.ask("POST", self._path("/signal"), {"name": name, "payload": payload})

    def cancel(self) -> None:
        """Ends it."""
        self._transport.ask("POST", self._path("/cancel"))

    def suspend(self) -> None:
        """Sets it aside."""
        self._transport.ask("POST", self._path("/suspend"))

    def resume(self) -> None:
        """Takes it up where it was left."""
        self._transport.ask("POST", self._path("/resume"))

    def artifacts(self) -> list[dict[str, Any]]:
        """Its results."""
        told = self._transport.ask("GET", self._path("/artifacts"), again=True)
        artifacts: list[dict[str, Any]] = told["artifacts"]
        return artifacts

    def artifact(self, path: str) -> bytes:
        """The bytes of one result."""
        return self._transport.read(self._path(f"/artifacts/{quote(path, safe='')}"))


def events_of(response: http.client.HTTPResponse) -> Iterator[tuple[str, str]]:
    """The events of a stream: kind and data. One that was cut off is none."""
    kind, data = "message", ""
    for raw in response:
        line = raw.decode().rstrip("\r\n")
        if not line:
            if data:
                yield kind, data
            kind, data = "message", ""
        elif line.startswith("event: "):
            kind = line[len("event: ") :]
        elif line.startswith("data: "):
            data = line[len("data: ") :]
