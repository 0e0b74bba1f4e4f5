"""What a provisioning says that installed all it was asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from knnkit.fleet.device.recorder import Recorder, nobody
from knnkit.fleet.jobs import provision
from knnkit.fleet.report import Outcome
from knnkit.fleet.targets import Target
from knnkit.provision import Provisioned
from knnkit.transport.base import Completed

OURS, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_a_key_that_the_device_has_revoked_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    done = Provisioned(True, "0" * 64, None, "0.1.0", "numpy", (), "3.11.2", "armv6l", (OURS,))
    monkeypatch.setattr(provision, "install", lambda *_, **__: done)
    target = Target("shed", None)
    job = provision.ProvisionJob(target, ((OURS, b""), (OTHER, b"")))
    agent = SimpleNamespace(trusted=(OTHER,), revoked=(OURS,))
    facts: Any = SimpleNamespace(noexec=None, fleeting="", agent=agent)
    report = provision._provision(job, None, facts, Recorder(target, nobody))  # type: ignore[arg-type]
    assert report.outcome is Outcome.ANSWERED
    assert report.warnings == (f"the device still refuses {OURS}, which was revoked",)


def test_of_a_traceback_the_error_alone_is_shown() -> None:
    trace = (
        b"Traceback (most recent call last):\n"
        + b'  File "x.py", line 1\n' * 50
        + b"EOFError: marshal data too short\n"
    )
    assert Completed((), 1, b"", trace, 0.1).complaint == "EOFError: marshal data too short"
    assert Completed((), 1, b"", b"sh: no\nsh: yes\n", 0.1).complaint == "sh: no\nsh: yes"
