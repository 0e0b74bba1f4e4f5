"""Both command lines speak one style of help: a phrase, its default at the end, a value's name in capitals."""

from __future__ import annotations

import argparse
import re

from knnkit.release import keys
from scripts import reference

COMMANDS = {
    **{f"knnkit {name}": parser for name, parser in reference.knnkit_parsers().items()},
    **{f"device_agent {name}".strip(): parser for name, parser in reference.agent_parsers().items()},
}
#: What argparse itself adds speaks for itself.
OWN = (argparse._HelpAction, argparse._VersionAction, argparse._SubParsersAction)
#: (command and argument, argument, its help)
ARGUMENTS = [
    (f"{name} {'/'.join(action.option_strings) or action.dest}", action, (action.help or "") % vars(action))
    for name, parser in COMMANDS.items()
    for action in parser._actions
    if not isinstance(action, OWN)
]


def test_both_command_lines_are_looked_at() -> None:
    names = {name for name, _, _ in ARGUMENTS}
    assert {"knnkit deploy --dry-run", "device_agent stage release", "device_agent --root"} <= names


def test_help_is_a_phrase_in_lower_case_without_a_full_stop() -> None:
    assert [name for name, _, said in ARGUMENTS if not re.fullmatch(r"[a-z]\S* \S.*[^.;:,\s]", said)] == []


def test_a_default_is_named_at_the_end_and_always_alike() -> None:
    nothing = (None, False, "", argparse.SUPPRESS)
    given = [(name, said) for name, action, said in ARGUMENTS if action.default not in nothing and action.default != []]
    assert [name for name, said in given if not said.endswith(")")] == []
    endings = {name: re.search(r"\([^()]*\)$", said) for name, _, said in ARGUMENTS}
    assert [name for name, found in endings.items() if found and not found[0].startswith("(default: ")] == []
    assert sum(found is not None for found in endings.values()) > 50


def test_an_option_that_may_stand_several_times_says_so() -> None:
    repeated = [(name, said) for name, action, said in ARGUMENTS if isinstance(action, argparse._AppendAction)]
    assert len(repeated) > 5
    assert [name for name, said in repeated if "; repeat it for more" not in said] == []


def test_the_name_of_a_value_is_in_capitals() -> None:
    valued = [(name, action) for name, action, _ in ARGUMENTS if action.nargs != 0 and not action.choices]
    assert [name for name, action in valued if not re.fullmatch(r"[A-Z]+(\|[A-Z]+)?", str(action.metavar))] == []


def test_a_command_is_described_in_sentences() -> None:
    described = {name: parser.description or "" for name, parser in COMMANDS.items()}
    assert [name for name, said in described.items() if not re.fullmatch(r"[A-Z].*\.", said)] == []


def test_keygen_names_the_variable_that_signing_reads() -> None:
    said = {name: help for name, _, help in ARGUMENTS}
    assert keys.PASSPHRASE_VARIABLE in said["knnkit keygen --passphrase"]
