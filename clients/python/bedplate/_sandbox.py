"""Sandboxes that are kept: files and commands under a policy, with moments to go back to."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlencode

from ._errors import BedplateError
from ._http import LOST, Transport
from ._runs import events_of

#: A shell's line, or words that it leaves alone.
Command = str | Sequence[str]


@dataclass(frozen=True)
class Output:
    """A piece of what a command printed."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True)
class Done:
    """What became of a command."""

    #: ok, failed, timed_out, killed, not_started, denied, expired or refused
    status: str
    #: Its exit status; None when it did not run.
    exit: int | None
    #: What it printed, as the log shows it: all of it, or a part that says so.
    output: str
    #: The record that holds this.
    record: int
    #: The sealed files after it.
    layer: str | None

    @property
    def ok(self) -> bool:
        """Whether it did what it should."""
        return self.status == "ok"


@dataclass(frozen=True)
class Ran:
    """A command that was run to its end."""

    done: Done
    stdout: bytes
    stderr: bytes
    #: Whether both are whole: the stream was read to its end.
    whole: bool

    @property
    def exit(self) -> int | None:
        """Its exit status; None when it did not run."""
        return self.done.exit


@dataclass(frozen=True)
class Change:
    """What differs at a path."""

    #: added, changed, removed, renamed or mode
    kind: str
    path: str
    bytes: int
    #: What it was called.
    was: str | None
    #: The text that differs, if it was asked for.
    text: str | None


@dataclass(frozen=True)
class Entry:
    """What stands at a path."""

    name: str
    path: str
    #: file, directory, link or other
    kind: str
    bytes: int
    mode: int
    modified: int
    #: Where a link leads.
    target: str | None = None


class Exec:
    """A command that was begun. Iterate over its output, then ask for its end with `wait`."""

    def __init__(self, sandbox: Sandbox, body: dict[str, Any]) -> None:
        self._sandbox = sandbox
        path = sandbox._path("/exec")
        # A server notices at once that a connection is gone which was to stay.
        stay = {"Connection": "keep-alive"}
        self._connection, response = sandbox._transport.open("POST", path, body, stay)
        self._events = events_of(response)
        self._done: Done | None = None
        #: Whether its output was read to its end.
        self.whole = False
        kind, data = self._next()
        if kind != "started":
            raise self._failed(data)
        #: The record that began it: its name.
        self.id: int = data["exec"]
        #: Whether the command before was undone for it, having lost its owner.
        self.undone: bool = data["undone"]

    def __enter__(self) -> Exec:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Reads no more. The command goes on, and its input ends."""
        self._connection.close()

    def __iter__(self) -> Iterator[Output]:
        """Its output as it comes. Ends with the command, with a question to a person, or when a
        process on the way dies; `wait` says how the command ended all the same."""
        try:
            while True:
                kind, data = self._next()
                if kind == "stdout" or kind == "stderr":
                    yield Output(kind, base64.b64decode(data["bytes"]))
                elif kind == "exit":
                    self._done, self.whole = _done(data), True
                    return
                elif kind == "error":
                    raise self._failed(data)
                else:
                    return
        except LOST:
            return
        finally:
            self.close()

    def write(self, data: bytes, *, end: bool = False) -> None:
        """Types to it, if it was begun with `stdin` or a terminal. `end`: no more comes."""
        query = "?end=true" if end else ""
        self._sandbox._ask("POST", f"/execs/{self.id}/input{query}", data)

    def resize(self, rows: int, columns: int) -> None:
        """Gives its terminal another size."""
        body = {"rows": rows, "columns": columns}
        self._sandbox._ask("POST", f"/execs/{self.id}/resize", body)

    def wait(self, on_wait: Callable[[list[dict[str, Any]]], None] | None = None) -> Done:
        """How it ended, from the log; `on_wait` is told the approvals that it waits for."""
        while self._done is None:
            self._done = self._sandbox._result(self.id, on_wait)
        self.close()
        return self._done

    def _next(self) -> tuple[str, dict[str, Any]]:
        for kind, text in self._events:
            data: dict[str, Any] = json.loads(text)
            return kind, data
        raise http.client.IncompleteRead(b"")

    @staticmethod
    def _failed(data: dict[str, Any]) -> BedplateError:
        error = data["error"]
        return BedplateError(200, error["code"], error["message"], error.get("next", ""))


class Sandbox:
    """A kept sandbox, by its id."""

    def __init__(self, transport: Transport, sandbox: str) -> None:
        self._transport = transport
        self.id = sandbox

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    def _path(self, rest: str = "") -> str:
        return f"/v1/sandboxes/{quote(self.id, safe='')}{rest}"

    def _ask(self, method: str, rest: str, body: Any = None, again: bool = False) -> Any:
        return self._transport.ask(method, self._path(rest), body, again)

    def get(self) -> dict[str, Any]:
        """The sandbox now: status, last record, layer."""
        document: dict[str, Any] = self._ask("GET", "", again=True)
        return document

    def exec(
        self,
        command: Command,
        *,
        timeout_s: int | None = None,
        input: bytes | None = None,
        stdin: bool = False,
        terminal: tuple[int, int] | None = None,
    ) -> Exec:
        """Begins a command. `input` is what it reads; with `stdin` more is written later.
        `terminal`: rows and columns of one of its own."""
        body: dict[str, Any] = {"command": command, "stdin": stdin}
        if not isinstance(command, str):
            body["command"] = list(command)
        if timeout_s is not None:
            body["timeout_s"] = timeout_s
        if input is not None:
            body["input"] = base64.b64encode(input).decode()
        if terminal is not None:
            body["terminal"] = {"rows": terminal[0], "columns": terminal[1]}
        return Exec(self, body)

    def run(
        self,
        command: Command,
        *,
        timeout_s: int | None = None,
        input: bytes | None = None,
        on_wait: Callable[[list[dict[str, Any]]], None] | None = None,
    ) -> Ran:
        """Runs a command to its end."""
        printed: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        with self.exec(command, timeout_s=timeout_s, input=input) as begun:
            for piece in begun:
                printed[piece.stream].append(piece.data)
            done = begun.wait(on_wait)
        stdout, stderr = b"".join(printed["stdout"]), b"".join(printed["stderr"])
        return Ran(done, stdout, stderr, begun.whole)

    def read(self, path: str, first: int = 0, last: int | None = None) -> bytes:
        """A file's bytes; from the first to the last, when they are named."""
        headers = {}
        if first or last is not None:
            headers["Range"] = f"bytes={first}-{'' if last is None else last}"
        return self._transport.read(self._path(_file("files", path)), headers)

    def write(
        self,
        path: str,
        data: bytes,
        on_wait: Callable[[list[dict[str, Any]]], None] | None = None,
    ) -> Done:
        """Writes a file, with the directories above it."""
        told = self._ask("PUT", _file("files", path), data)
        if told["done"]:
            return _done(told)
        while True:
            done = self._result(told["exec"], on_wait)
            if done is not None:
                break
        if not done.ok:
            raise BedplateError(403, "BP-SERVE-022", f"'{path}' was not written: {done.output}")
        return done

    def stat(self, path: str) -> Entry:
        """What stands at a path."""
        return Entry(**self._ask("GET", _file("stat", path), again=True))

    def files(self, path: str = "") -> list[Entry]:
        """What lies in a directory."""
        entries: list[Entry] = []
        start: int | None = 0
        while start is not None:
            query = urlencode({"path": path, "from": start})
            told = self._ask("GET", f"/files?{query}", again=True)
            entries += [Entry(**entry) for entry in told["entries"]]
            start = told["next"]
        return entries

    def snapshot(self, name: str | None = None) -> str:
        """Names the moment it is at."""
        told = self._ask("POST", "/snapshot", {} if name is None else {"name": name})
        taken: str = told["snapshot"]
        return taken

    def fork(self, count: int = 1, at: str | None = None) -> list[Sandbox]:
        """Makes sandboxes that go on from now, or from a snapshot."""
        body: dict[str, Any] = {"count": count}
        if at is not None:
            body["at"] = at
        told = self._ask("POST", "/fork", body)
        return [Sandbox(self._transport, sandbox) for sandbox in told["sandboxes"]]

    def rollback(self, to: str) -> None:
        """Takes it back to a snapshot."""
        self._ask("POST", "/rollback", {"to": to})

    def diff(
        self, since: str | None = None, to: str | Sandbox | None = None, *, text: bool = False
    ) -> list[Change]:
        """What differs: from a snapshot or its beginning, to now, a snapshot or a sandbox."""
        query = {"text": "true" if text else "false"}
        if since is not None:
            query["from"] = since
        if isinstance(to, Sandbox):
            query["to"] = to.id
        elif to is not None:
            query["to"] = f"@{to}"
        told = self._ask("GET", f"/diff?{urlencode(query)}", again=True)
        return [
            Change(of["kind"], of["path"], of["bytes"], of.get("from"), of.get("text"))
            for of in told["changes"]
        ]

    def destroy(self) -> None:
        """Ends it, and removes what only it needs."""
        self._ask("DELETE", "")

    def _result(
        self, exec: int, on_wait: Callable[[list[dict[str, Any]]], None] | None
    ) -> Done | None:
        """The result of a command, when there is one by the end of a wait."""
        told = self._ask("GET", f"/execs/{exec}", again=True)
        if told["done"]:
            return _done(told)
        if on_wait is not None and told["status"] == "waiting":
            on_wait(told["approvals"])
        return None


def _done(told: dict[str, Any]) -> Done:
    names = ("status", "exit", "output", "record", "layer")
    return Done(*(told[name] for name in names))


def _file(what: str, path: str) -> str:
    return f"/{what}/{quote(path, safe='')}"
