"""What stops the work on a board, in words for programs and for people."""

from __future__ import annotations


class Trouble(Exception):
    """What stops the work: a stable word for programs, a sentence for people, and what to do next."""

    def __init__(self, reason: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.hint = hint
