"""Five bare boards for the length of a session: programs of three architectures, each behind an sshd of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.boards import KINDS, Fleet, board, write_ssh_config


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Five bare boards."""
    with ExitStack() as stack:
        boards = {name: stack.enter_context(board(name, *kind)) for name, kind in KINDS.items()}
        yield Fleet(boards, write_ssh_config(tmp_path_factory.mktemp("fleet") / "ssh_config", boards))
