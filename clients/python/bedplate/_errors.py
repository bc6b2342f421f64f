"""What can go wrong."""

from __future__ import annotations


class BedplateError(Exception):
    """The server refused: a stable code, what happened and why, and what to do next."""

    def __init__(self, status: int, code: str, message: str, next_step: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.next_step = next_step


class Diverged(BedplateError):
    """The program takes another step than the log has at this place (BP-SERVE-009)."""


class Unreachable(Exception):
    """No server answered for as long as the client is patient."""
