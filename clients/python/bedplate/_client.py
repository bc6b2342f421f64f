"""The client."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from ._http import Transport
from ._runs import Run
from ._sandbox import Sandbox
from ._steps import Steps, Waiting


class Client:
    """A server's client. Without arguments: the Unix socket of the default home."""

    def __init__(
        self,
        *,
        home: str | os.PathLike[str] | None = None,
        socket: str | os.PathLike[str] | None = None,
        url: str | None = None,
        token: str | None = None,
        patience: float = 30.0,
    ) -> None:
        """`home`: the server's, BEDPLATE_HOME when absent. `url`: over TCP instead, with `token` or
        what the home's `serve.token` holds. `patience`: seconds for which what is safe to ask again
        is, while a process on the way is gone."""
        self._transport = Transport(home, socket, url, token, patience)

    def runs(self) -> list[dict[str, Any]]:
        """All runs, newest first."""
        runs: list[dict[str, Any]] = self._transport.ask("GET", "/v1/runs", again=True)["runs"]
        return runs

    def run(self, run: str) -> Run:
        """The run of this id, or `last`."""
        return Run(self._transport, run)

    def start(
        self,
        *,
        agent: str | os.PathLike[str] | None = None,
        task: str | None = None,
        workspace: str | os.PathLike[str] | None = None,
        input: str = "",
        model: str | None = None,
        env: str | None = None,
    ) -> Run:
        """Starts a run of an agent's directory, or of a task in a workspace. Not asked again when
        the answer is lost: it might start twice."""
        body: dict[str, Any] = {"input": input, "model": model, "env": env, "task": task}
        for name, path in (("agent", agent), ("workspace", workspace)):
            body[name] = None if path is None else os.path.abspath(path)
        return Run(self._transport, self._transport.ask("POST", "/v1/runs", body)["run"])

    def steps(
        self,
        *,
        key: str,
        agent: str | os.PathLike[str],
        input: str = "",
        model: str | None = None,
        env: str | None = None,
        on_wait: Callable[[Waiting], None] | None = None,
    ) -> Steps:
        """Opens the run that `key` names, or makes it: the same key is always the same run. Take
        its steps in order; those of the log are answered from there. `on_wait` is told when a step
        needs a person."""
        body = {"key": key, "agent": os.path.abspath(agent), "input": input}
        body |= {"model": model, "env": env}
        opened = self._transport.ask("POST", "/v1/steps/runs", body, again=True)
        return Steps(self._transport, opened["run"], opened["opening"], opened["steps"], on_wait)

    def create_sandbox(
        self,
        *,
        key: str | None = None,
        workspace: str | os.PathLike[str] | None = None,
        policy: str | os.PathLike[str] | None = None,
        image: str | None = None,
    ) -> Sandbox:
        """Makes a sandbox that is kept. The same `key` is always the same sandbox, and asked for
        again when a process on the way dies; without one, another is made each time."""
        body: dict[str, Any] = {"key": key, "image": image}
        for name, path in (("workspace", workspace), ("policy", policy)):
            body[name] = None if path is None else os.path.abspath(path)
        told = self._transport.ask("POST", "/v1/sandboxes", body, again=key is not None)
        return Sandbox(self._transport, told["sandbox"])

    def sandbox(self, sandbox: str) -> Sandbox:
        """The sandbox of this id."""
        return Sandbox(self._transport, sandbox)

    def sandboxes(self) -> list[dict[str, Any]]:
        """All sandboxes that are kept, newest first."""
        told = self._transport.ask("GET", "/v1/sandboxes", again=True)
        sandboxes: list[dict[str, Any]] = told["sandboxes"]
        return sandboxes

    def approvals(self, run: str | None = None) -> list[dict[str, Any]]:
        """What waits for a person."""
        query = "" if run is None else f"?run={quote(run, safe='')}"
        told = self._transport.ask("GET", f"/v1/approvals{query}", again=True)
        approvals: list[dict[str, Any]] = told["approvals"]
        return approvals

    def approve(self, id: str, *, for_run: bool = False, speaks_for: str | None = None) -> None:
        """Lets what is asked happen, once."""
        self._answer(id, "approve", {"for_run": for_run, "as": speaks_for})

    def deny(self, id: str, reason: str, *, speaks_for: str | None = None) -> None:
        """Refuses what is asked."""
        self._answer(id, "deny", {"reason": reason, "as": speaks_for})

    def resolve(self, id: str, resolution: str, result: Any = None) -> None:
        """Says what became of an action in doubt: `happened`, `not_happened` or `abandoned`."""
        self._answer(id, "resolve", {"resolution": resolution, "result": result})

    def _answer(self, id: str, verb: str, body: dict[str, Any]) -> None:
        self._transport.ask("POST", f"/v1/approvals/{quote(id, safe='')}/{verb}", body)
