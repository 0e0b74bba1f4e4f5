"""Strict YAML reader that records line and column of everything.

Stricter and simpler than YAML 1.1: a repeated key is an error; `on`, `yes`, `1:30` and dates are text; `1e-5` is a
number. Tags are errors, so the file cannot construct objects. Never reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from knnkit.errors import ConfigError

FILE_NAME = "deploy.yaml"
#: Path to a value: its keys and list indices, such as ("fleet", "targets", 0, "host").
Place = tuple[str | int, ...]

#: Longest text in characters; a deploy.yaml is written by hand, so a longer one is the wrong file.
MAX_TEXT = 1024 * 1024
#: Most nodes; an alias counts each time it is used, against "billion laughs" documents.
MAX_NODES = 200_000
#: Most digits of a whole number; Python's `int` raises for numbers with more than 4,300 digits.
_MOST_DIGITS = 1000
#: Longest quoted part of a line in a message, in characters.
_QUOTED = 160


#: Frequent mistakes: a part of PyYAML's message, and what to do.
_MISTAKES = (
    ("alias", "put a pattern in quotes: files: '*.csv'"),
    (r"'\\t'", "write spaces in place of tabs"),
    ("escape character", r"put a path in single quotes: file: 'C:\data\train.csv'"),
    ("cannot start any token|but found ','", "put the value in quotes, thousands: ',', or remove a comma too many"),
    ("another document", "one file holds one configuration: remove the lines from --- on"),
)
#: A key with its value glued to the colon, which YAML reads as one word.
_GLUED = re.compile(r"\s*(?:- +)?([A-Za-z_]\w*):(?!//)([^\s:].*)")


@dataclass(frozen=True)
class Mark:
    """A position in the file: line and column, both counted from 1."""

    line: int
    column: int

    @classmethod
    def of(cls, mark: yaml.Mark | None) -> Mark:
        """Returns a mark of PyYAML; the start of the file for None."""
        return cls(1, 1) if mark is None else cls(mark.line + 1, mark.column + 1)


@dataclass
class Document:
    """A parsed YAML file."""

    text: str  # as read
    source: str  # the file's name in messages
    data: Any = None  # dictionaries, tuples and scalars
    marks: dict[Place, Mark] = field(default_factory=dict)  # key path of each key and list entry -> its position
    scalars: dict[Place, str] = field(default_factory=dict)  # key path of each scalar -> its text in the file

    def value(self, path: Sequence[str | int]) -> Any:
        """Returns the value at `path`."""
        value = self.data
        for part in path:
            value = value[part]
        return value

    def mark(self, path: Sequence[str | int]) -> Mark:
        """Returns the position of the key at `path`; if the file lacks it, of its nearest parent, or else the start."""
        return self.marks.get(self.place(path), Mark(1, 1))

    def place(self, path: Sequence[str | int]) -> Place:
        """Returns the key path `path` without the parts that are not in the file: pydantic adds names of types."""
        found: Place = ()
        for part in path:
            if (*found, part) in self.marks:
                found = (*found, part)
        return found

    def quote(self, mark: Mark) -> str:
        """Returns the line of text at `mark` with its number, and below it a `^` under the column."""
        lines = self.text.splitlines()
        line = lines[mark.line - 1] if mark.line <= len(lines) else ""
        start = max(0, min(mark.column - 1 - _QUOTED // 2, len(line) - _QUOTED)) if len(line) > _QUOTED else 0
        shown, column = line[start : start + _QUOTED], mark.column - 1 - start
        number = f"{mark.line:>5} | "
        return f"{number}{shown}\n{' ' * (len(number) - 2)}| {' ' * column}^"

    def line_of(self, path: Sequence[str | int]) -> str:
        """Returns the last key of `path` with file and line: `identity in deploy.yaml:7`."""
        return f"{path[-1]} in {self.source}:{self.mark(path).line}"

    def error(self, path: Sequence[str | int], message: str) -> str:
        """Returns `message` with the file, the line number and the quoted line."""
        mark = self.mark(path)
        return f"{self.source}:{mark.line}: {message}\n{self.quote(mark)}"


class _TooMany(Exception):
    """Error: the text has more values than the reader allows."""


class Loader(yaml.SafeLoader):
    """YAML loader with SafeLoader's syntax and the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (the name and type are PyYAML's)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._composed = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Composes a node as the base class does; raises `_TooMany` after `MAX_NODES` nodes: more would take long."""
        self._composed += 1
        if self._composed > MAX_NODES:
            raise _TooMany
        return super().compose_node(parent, index)

    def scan_flow_scalar(self, style: str) -> Any:
        """Scans quoted text as the base class does; escapes such as \\ud83d\\ude00 are one character, as in JSON."""
        token: Any = super().scan_flow_scalar(style)
        token.value = token.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return token


_SCALARS: tuple[tuple[str, str, str], ...] = (
    ("bool", r"true|True|false|False", "tTfF"),
    ("null", r"~|null|Null|", "~nN\0"),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf)|\.(?:nan|NaN)",
     "-+.0123456789"),
)  # fmt: skip
for _tag, _pattern, _first in _SCALARS:
    Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), [c if c != "\0" else "" for c in _first]
    )


def glued(line: str) -> str:
    """Returns a line such as `label:species` with the blank that is missing after the colon; "" for another line."""
    found = _GLUED.fullmatch(line)
    return f"{found[1]}: {found[2].strip()}" if found else ""


def read(text: str, source: str) -> Document:
    """Parses one YAML document.

    Raises:
        ConfigError: the text is not YAML, too large, or has a repeated key or a key that is not text.
    """
    document = Document(text, source)
    if len(text) > MAX_TEXT:
        raise ConfigError(f"{source}: more than {MAX_TEXT:,} characters", hint="is it the right file?")
    try:
        node = yaml.compose(text, Loader=Loader)
    except _TooMany:
        raise ConfigError(f"{source}: more than {MAX_NODES:,} values", hint="is it the right file?") from None
    except yaml.MarkedYAMLError as error:
        mark = Mark.of(error.problem_mark or error.context_mark)
        problem = " ".join(part for part in (error.context, error.problem) if part)
        lines, last = text.splitlines(), error.context_mark.line if error.context_mark else mark.line - 1
        near = next(filter(None, (glued(lines[at]) for at in (last, last - 1) if 0 <= at < len(lines))), "")
        usual = f"check brackets, quotes, colons and the indent in line {mark.line} and above"
        hint = next((hint for sign, hint in _MISTAKES if re.search(sign, problem)), usual)
        hint = f"{near}  # with a blank after the colon" if near else hint
        raise ConfigError(f"{source}:{mark.line}: not YAML: {problem}\n{document.quote(mark)}", hint=hint) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        said = f"{source}:{line}: not YAML: the character {text[error.position]!r} is not allowed"
        raise ConfigError(said, hint=f"remove it from line {line}") from None
    except (yaml.YAMLError, RecursionError) as error:
        problem = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(
            f"{source}: not YAML: {problem}", hint="is it the right file? knnkit init writes a new one"
        ) from None
    document.data = {} if node is None else _Builder(document).build(node, ())
    return document


class _Builder:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes = 0
        self._open: set[int] = set()

    def build(self, node: yaml.Node, path: Place) -> Any:
        self._document.marks.setdefault(path, Mark.of(node.start_mark))
        self._nodes += 1
        if self._nodes > MAX_NODES or id(node) in self._open:
            endless = id(node) in self._open
            problem = "an alias contains itself" if endless else f"aliases make more than {MAX_NODES:,} values"
            raise ConfigError(self._document.error(path, problem), hint="replace the aliases (*name) with their values")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return tuple(self.build(item, (*path, index)) for index, item in enumerate(node.value))
            return self._scalar(node, path)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            mark = Mark.of(key_node.start_mark)
            if not isinstance(key, str):
                hint = (
                    "write NAME: VALUE; around several of these, single braces {}; docs/deploy-yaml.md lists the names"
                )
                problem = f"{self._document.source}:{mark.line}: a key must be text, not a list or mapping"
                raise ConfigError(f"{problem}\n{self._document.quote(mark)}", hint=hint)
            if key in found:
                first = self._document.marks[(*path, key)].line
                where = f"{self._document.source}:{mark.line}"
                problem = f"the key {key!r} is repeated; first on line {first}"
                hint = f"remove line {first} or line {mark.line}" if first != mark.line else "remove one of the two"
                raise ConfigError(f"{where}: {problem}\n{self._document.quote(mark)}", hint=hint)
            self._document.marks[(*path, key)] = mark
            found[key] = self.build(value_node, (*path, key))
        return found

    def _scalar(self, node: yaml.Node, path: Place) -> Any:
        kind = node.tag.rpartition(":")[2]
        text: str = node.value
        self._document.scalars[path] = text
        if kind == "str":
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int" and len(text) > _MOST_DIGITS:
            problem = f"a number of {len(text):,} digits"
            raise ConfigError(self._document.error(path, problem), hint="write it in quotes if it is text")
        if kind == "int":
            return int(text, 16 if text.lower().startswith("0x") else 10)
        if kind == "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        problem = f"the tag {node.tag!r} is not supported"
        raise ConfigError(self._document.error(path, problem), hint="remove the word that begins with '!'")
