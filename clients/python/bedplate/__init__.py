"""Client of a Bedplate server (`bedplate serve`): runs, their events, approvals, steps, and
sandboxes.

Only the standard library. What is asked by reading or by step is asked again when a process on the
way dies, for as long as `patience` says; nothing that could happen twice is.
"""

from ._client import Client
from ._errors import BedplateError, Diverged, Unreachable
from ._runs import Run
from ._sandbox import Change, Done, Entry, Exec, Output, Ran, Sandbox
from ._steps import Answer, Call, Result, Steps, Waiting

__all__ = [
    "Answer",
    "BedplateError",
    "Call",
    "Change",
    "Client",
    "Diverged",
    "Done",
    "Entry",
    "Exec",
    "Output",
    "Ran",
    "Result",
    "Run",
    "Sandbox",
    "Steps",
    "Unreachable",
    "Waiting",
]
__version__ = "0.1.0"
