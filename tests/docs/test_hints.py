"""Every command that a message names can be typed: collected from the source, parsed by the program's own parsers.

`python tests/docs/test_hints.py` prints the table: file, line, command, and the message that names it.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from device_agent import cli as agent
from device_agent.commands import COMMANDS as AGENT_COMMANDS
from device_agent.shared.console.argument_parser import Parser
from knnkit.commands import COMMANDS, _parsers

ROOT = Path(__file__).parents[2]
#: Texts that nobody types from: a shell's completion, and the name of a run in history.
_NO_MESSAGES = (
    "knnkit/commands/completion.py",
    "knnkit/commands/_demo_article.py",
    "knnkit/commands/_demo_inputs.py",
    "knnkit/transport/ssh/auth.py",
)
_AGENT = "python -m device_agent"
_NAMED = re.compile(rf"\b(knnkit|{_AGENT}) ({'|'.join({*COMMANDS, *AGENT_COMMANDS})})\b([^`;,\n]*)")


@dataclass(frozen=True)
class Named:
    """A command in a message: its program, its words, and where it stands."""

    program: str
    words: tuple[str, ...]
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}-{self.program} {' '.join(self.words)}"


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yields every string of a module but its docstrings; `{}` stands for what is filled in."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(_filled(part) for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (docs | parts):
            yield node.lineno, node.value


def _filled(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    source = ast.unparse(part.value)
    if source.endswith(".words"):
        return "--target LOCAL"
    if source.startswith(("_config.flags(", "_selection.words(")):
        return " -c X1"
    return "X1 --fingerprint X1" if "'--fingerprint'" in source else "X1"


def typed(rest: str) -> Iterator[str]:
    """Yields the words of a command; a word of a sentence ends it."""
    option = False
    for word in rest.split():
        plain = word.rstrip(".:…")
        if not (plain.startswith("-") or not plain[:1].islower() or any(c in plain for c in "./_=")):
            return
        if plain == "..." or not plain or (option and plain[:1].islower() and not any(c in plain for c in "./_")):
            return
        yield plain
        if plain != word:
            return
        option = plain.startswith("-")


def named() -> list[Named]:
    """Every command of ours that a string of the program names."""
    found = []
    for path in sorted(p for room in ("knnkit", "device_agent") for p in (ROOT / room).rglob("*.py")):
        for line, text in strings(ast.parse(path.read_text(encoding="utf-8"))):
            for program, command, rest in _NAMED.findall(text):
                words = (command, *typed(rest))
                if str(path.relative_to(ROOT)) in _NO_MESSAGES:
                    continue
                found.append(Named(program, words, f"{path.relative_to(ROOT)}:{line}", " ".join(text.split())))
    return found


FOUND = named()


def parser_of(program: str, words: tuple[str, ...]) -> argparse.ArgumentParser:
    """The parser that the program itself would use for these words."""
    if program != "knnkit":
        return agent.build_parser(AGENT_COMMANDS, words)
    parser = Parser(prog="knnkit")
    commands = parser.add_subparsers(dest="command", required=True)
    _parsers.CONFIGURE[words[0]](commands.add_parser(words[0]))
    return parser


def test_the_scan_finds_the_hints_that_people_meet() -> None:
    commands = {one.words[0] for one in FOUND if one.program == "knnkit"}
    assert commands > {
        "provision",
        "deploy",
        "trust",
        "rollback",
        "build",
        "sign",
        "keygen",
        "init",
        "doctor",
        "status",
    }
    assert {one.words[0] for one in FOUND if one.program != "knnkit"} >= {"status", "doctor", "rollback"}
    assert len(FOUND) > 60


@pytest.mark.parametrize("one", FOUND, ids=str)
def test_a_command_in_a_message_can_be_typed(one: Named, capsys: pytest.CaptureFixture[str]) -> None:
    code: int | str | None = 0
    try:
        parser_of(one.program, one.words).parse_args(list(one.words))
    except SystemExit as ended:  # --help ends with 0
        code = ended.code
    assert code == 0, f"{one.where}: {shlex.join(one.words)}\n{one.message}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("one", [one for one in FOUND if "provision" in one.words and "--remove" in one.words], ids=str)
def test_what_removes_a_device_names_it(one: Named) -> None:
    assert "--target" in one.words


def test_no_message_names_a_package_that_no_index_has() -> None:
    for path in (p for room in ("knnkit", "device_agent") for p in (ROOT / room).rglob("*.py")):
        for line, text in strings(ast.parse(path.read_text(encoding="utf-8"))):
            assert not re.search(r"pip install '?\"?knnkit", text), f"{path}:{line}"


def table() -> dict[tuple[str, str], str]:
    """(file, command) -> the test that types the command, or `-:` and the reason why no test does."""
    lines = (Path(__file__).parent / "hints.txt").read_text().splitlines()
    rows = [line.split(" | ") for line in lines if not line.startswith("#")]
    return {(file, command): walk for file, command, walk in rows}


def test_every_hint_is_in_the_table_with_the_walk_that_types_it() -> None:
    found = {(one.where.partition(":")[0], f"{one.program} {' '.join(one.words)}") for one in FOUND}
    assert found - set(table()) == set(), "add a walk that types it, and a line to hints.txt"
    assert set(table()) - found == set(), "no message names it any more"


@pytest.mark.parametrize("walk", sorted({walk for walk in table().values() if not walk.startswith("-: ")}))
def test_the_walk_of_a_hint_exists(walk: str) -> None:
    file, _, test = walk.partition("::")
    assert test, "name the test, not its file"
    assert f"def {test}(" in (ROOT / file).read_text()


if __name__ == "__main__":
    for one in FOUND:
        print(f"{one.where}\t{one.program} {' '.join(one.words)}\t{one.message[:100]}")


#: A command in a message that a path follows.
_TAKES_PATH = re.compile(
    r"(?:^|[\s`;&|])(?:ls|ls -ld|mkdir -p|rm|mv|df -i|chmod [a-z0-7+-]+|puttygen|knnkit (?:verify|label|inspect)"
    r"|knnkit (?:build|deploy) -c|knnkit keygen --out|knnkit trust --(?:apply|out)) $"
)
#: What needs no quotes, and a function whose result is quoted.
_QUOTES = re.compile(r"quote\(|typed\(|self\.shown\(|^kind$")


def test_a_path_in_a_command_is_quoted_for_a_shell() -> None:
    """Folders have blanks and quotes in their names; a hint is pasted."""
    count = 0
    for path in sorted(p for room in ("knnkit", "device_agent") for p in (ROOT / room).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            parts = node.values if isinstance(node, ast.JoinedStr) else []
            for before, part in itertools.pairwise(parts):
                said = before.value if isinstance(before, ast.Constant) else ""
                if not (isinstance(part, ast.FormattedValue) and _TAKES_PATH.search(str(said))):
                    continue
                count += 1
                source = ast.unparse(part.value)
                quoted = _QUOTES.search(source) or re.search(rf"\b{source}(?:, \w+)* = [^\n]*quote\(", text)
                assert quoted, f"{path.relative_to(ROOT)}:{part.lineno}: {source} is not quoted"
    assert count > 15
