"""Whoever is told that a key is not trusted is told what to type: commands that knnkit takes as they stand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ROOT, forge

from device_agent.shared.console.argument_parser import Parser
from device_agent.shared.protocol.errors import Refused
from device_agent.shared.trust import orders
from device_agent.shared.trust.orders import KeySets
from knnkit.commands import _parsers
from knnkit.errors import VerificationFailed
from knnkit.release import orders as issue
from knnkit.release.verify import verify_release

PLANS = ROOT / "tests" / "knnkit" / "fleet" / "decide" / "plans.json"


def commands_in(hint: str) -> list[list[str]]:
    return [words.split() for words in re.findall(r"`knnkit ([^`]+)`", hint)]


def refused_release(directory: Path) -> str:
    forge.write(directory)
    forge.sign(directory, by="stranger")
    with pytest.raises(Refused) as caught:
        forge.verify(directory)
    return caught.value.hint


def no_key_at_all(directory: Path) -> str:
    with pytest.raises(Refused) as caught:
        forge.verify(forge.write(directory), forge.state(keys={}))
    return caught.value.hint


def refused_order(directory: Path) -> str:
    order = issue.revoke(forge.signer("stranger"), [forge.fingerprint("owner")], issued=forge.NOW)
    with pytest.raises(Refused) as caught:
        orders.apply(order, KeySets(forge.keys("owner", "lost"), frozenset()))
    return caught.value.hint


def verified_on_the_host(directory: Path) -> str:
    forge.write(directory)
    (directory.parent / "other.pub").write_bytes(forge.signer("other").public_pem)
    with pytest.raises(VerificationFailed) as caught:
        verify_release(directory, [directory.parent / "other.pub"], now=forge.NOW)
    return caught.value.hint


def planned(directory: Path) -> str:
    hint: str = json.loads(PLANS.read_text())["a key that is not trusted"]["refusal"]["hint"]
    return hint


@pytest.mark.parametrize("told", [refused_release, no_key_at_all, refused_order, verified_on_the_host, planned])
def test_each_hint_about_trust_is_a_command_with_its_flags(told: Callable[[Path], str], tmp_path: Path) -> None:
    hint = told(tmp_path / "release")
    assert commands_in(hint), hint
    for name, *arguments in commands_in(hint):
        assert any(word.startswith("--") for word in arguments), hint
        parser = Parser(prog=name)
        _parsers.CONFIGURE[name](parser)
        parsed = parser.parse_args(arguments)
        assert getattr(parsed, "host", None) is None, "a word of the sentence was taken for a host"
