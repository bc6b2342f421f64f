"""Steps: your own loop, with the gate and the log of a run.

Each step is decided, recorded and done once. A program that is started again takes the same steps
from the first one on: what the log has is answered from there, and the rest is done. So whatever
the program decides by comes from its steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._http import Transport
from ._runs import Run


@dataclass(frozen=True)
class Call:
    """A tool call that the model asks for."""

    call_id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the model said."""

    text: str
    calls: list[Call]
    usage: dict[str, int]
    cost_usd: float
    #: Whether it came from the log.
    replayed: bool


@dataclass(frozen=True)
class Result:
    """What a tool, a command or a check gave."""

    #: ok, failed, timed_out, killed, not_started, denied, expired, refused, happened, not_happened
    #: or abandoned
    status: str
    #: The text: all of it, or a part that says so.
    output: str
    #: The exit status of a command.
    exit: int | None
    #: Whether it came from the log.
    replayed: bool

    @property
    def ok(self) -> bool:
        """Whether it did what it should."""
        return self.status in ("ok", "happened")

    @property
    def value(self) -> Any:
        """The result of a command tool, which is JSON."""
        return json.loads(self.output)


@dataclass(frozen=True)
class Waiting:
    """A step that goes on only when a person has done something."""

    run: str
    at: int
    #: waiting or suspended
    status: str
    approvals: list[dict[str, Any]]


class Steps(Run):
    """A run whose steps this program takes, one after the other."""

    def __init__(
        self,
        transport: Transport,
        run: str,
        opening: str,
        recorded: int,
        on_wait: Callable[[Waiting], None] | None,
    ) -> None:
        super().__init__(transport, run)
        self._opening = opening
        self._on_wait = on_wait
        #: Steps that the log had when the run was opened.
        self.recorded = recorded
        #: Steps taken by this program.
        self.taken = 0

    def model(self, input: str | None = None) -> Answer:
        """Calls the model with the run's conversation, which `input` joins first."""
        told, replayed = self._take({"type": "model", "input": input})
        calls = [Call(**call) for call in told["calls"]]
        return Answer(told["text"], calls, told["usage"], told["cost_usd"], replayed)

    def tool(self, name: str, /, **arguments: Any) -> Result:
        """Calls a tool."""
        return self._result({"type": "tool", "name": name, "arguments": arguments})

    def call(self, call: Call) -> Result:
        """Carries out what the model asked for: its result joins the conversation."""
        step = {"type": "tool", "name": call.name, "arguments": call.arguments}
        return self._result(step | {"call_id": call.call_id})

    def exec(self, command: str, timeout_s: int | None = None) -> Result:
        """Runs a shell command in the run's sandbox."""
        return self._result({"type": "exec", "command": command, "timeout_s": timeout_s})

    def check(self, name: str) -> Result:
        """Runs a check of the manifest, on a copy of the workspace."""
        return self._result({"type": "check", "name": name})

    def end(self, output: str = "", *, failed: bool = False) -> dict[str, Any]:
        """Ends the run: as done, when every check passes, or as failed. Gives the run."""
        status = "failed" if failed else "done"
        told, _ = self._take({"type": "end", "status": status, "output": output})
        result: dict[str, Any] = told["result"]
        return result

    def _result(self, step: dict[str, Any]) -> Result:
        told, replayed = self._take(step)
        return Result(told["status"], told["output"], told.get("exit"), replayed)

    def _take(self, step: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        step = {name: value for name, value in step.items() if value is not None}
        body = {"opening": self._opening, "at": self.taken, "step": step}
        path = f"/v1/steps/runs/{self.id}/steps"
        while True:
            # The place names the step, so that asking again is asking for the same.
            told = self._transport.ask("POST", path, body, again=True)
            if told["done"]:
                self.taken += 1
                return told["outcome"], told["replayed"]
            if self._on_wait is not None and told["status"] != "running":
                self._on_wait(Waiting(self.id, self.taken, told["status"], told["approvals"]))
