"""Writes the reference pages under docs/ from the program itself: `python -m scripts.reference`.

docs/commands.md from knnkit's parsers, docs/agent.md from the agent's, docs/documents.md from its records,
docs/deploy-yaml.md from the models of deploy.yaml, docs/scikit-learn.md from what is imported, docs/decisions/README.md
from the first lines of each record.
tests/docs fails if a page differs from what this writes, or if a flag, a command or a key has no description.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

DOCS = Path(__file__).resolve().parents[1] / "docs"
_WRITTEN = "<!-- Written by `python -m scripts.reference` from the program itself; do not edit. -->\n"


class _Caught(BaseException):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def parser_of(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> argparse.ArgumentParser:
    """Returns the parser with which `main` would parse `argv`; `main` goes no further."""

    def caught(self: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _Caught(self)

    with mock.patch.multiple(argparse.ArgumentParser, parse_args=caught, parse_known_args=caught):
        try:
            main(argv)
        except _Caught as catch:
            return catch.parser
    raise AssertionError(f"{argv} was not parsed")


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Returns the parsers of a parser's commands by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def knnkit_parsers() -> dict[str, argparse.ArgumentParser]:
    """Returns the parser of every knnkit command."""
    from knnkit import cli
    from knnkit.commands import COMMANDS

    return {name: subparsers(parser_of(cli.main, [name]))[name] for name in COMMANDS}


def agent_parsers() -> dict[str, argparse.ArgumentParser]:
    """Returns the parser of every agent command; `""` is that of the agent itself."""
    from device_agent import cli

    top = parser_of(cli.main, [])
    return {"": top, **subparsers(top)}


def arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Yields each argument of a parser as it is typed, and its help."""
    for action in parser._actions:
        hidden = isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
        if hidden or action.help is argparse.SUPPRESS:
            continue
        yield _typed(action), _help(parser, action)


def _typed(action: argparse.Action) -> str:
    value = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    )
    if isinstance(value, tuple):
        value = " ".join(value)
    if not action.option_strings:
        return f"[{value}]" if action.nargs in ("?", "*") else str(value)
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} {value}"


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _section(name: str, parser: argparse.ArgumentParser) -> str:
    lines = [f"## {name}", "", parser.description or "", ""]
    rows = list(arguments(parser))
    if rows:
        lines += ["| argument | meaning |", "| --- | --- |"]
        lines += [f"| `{_cell(typed)}` | {_cell(said)} |" for typed, said in rows]
        lines.append("")
    return "\n".join(lines)


def commands_page() -> str:
    """Returns docs/commands.md."""
    intro = (
        "# Commands\n\n"
        "Text for people goes to standard error, results to standard output; `--json` prints one JSON document. Exit "
        "codes: 0 done, 1 a device failed or rolled back, 2 usage, configuration or input, 3 only unreachable devices, "
        "4 verification, parity or accuracy failed, 5 locked. `python -m knnkit` is the same as `knnkit`.\n\n"
    )
    return _WRITTEN + intro + "\n".join(_section(f"knnkit {name}", parser) for name, parser in knnkit_parsers().items())


def agent_page() -> str:
    """Returns docs/agent.md."""
    intro = (
        "# The device agent\n\n"
        "Runs on the device: `~/.knnkit/venv/bin/python -m device_agent COMMAND`. `knnkit` calls it over SSH; a person "
        "on the board can, too. Exit codes as in [commands.md](commands.md); the keys of `--json` are in "
        "[documents.md](documents.md).\n\n"
    )
    sections = [_section(f"device_agent {name}".strip(), parser) for name, parser in agent_parsers().items()]
    return _WRITTEN + intro + "\n".join(sections)


def documents_page() -> str:
    """Returns docs/documents.md."""
    intro = (
        "# JSON documents of the agent\n\n"
        "What `python -m device_agent COMMAND --json` prints. A key keeps its meaning and unit; later versions may add "
        "keys, so ignore those that you do not know ([025](decisions/025-documents-that-grow.md)). Names with "
        "`bytes`, `ms` or `seconds` have this unit; points in time are in seconds since 1970, UTC. `schema` is the "
        "version of the format.\n\n"
    )
    return _WRITTEN + intro + "\n".join(_documents())


def _documents() -> Iterator[str]:
    """Yields a section for each document that the agent prints, then for each record inside one."""
    records: dict[str, tuple[str, ast.ClassDef]] = {}
    for name in ("documents.py", "reports.py", "model_info.py"):
        text = (DOCS.parent / "device_agent" / "shared" / "protocol" / name).read_text(encoding="utf-8")
        records |= {node.name: (text, node) for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
    names = [name for name, (_, node) in records.items() if "agent " in str(ast.get_docstring(node)).split(":")[0]]
    for name in names:  # grows: a record is printed after those that contain it
        text, node = records[name]
        said = " ".join(str(ast.get_docstring(node)).split())
        lines = [f"## {name}", "", said, "", "| key | value | meaning |", "| --- | --- | --- |"]
        for field in (each for each in node.body if isinstance(each, ast.AnnAssign)):
            kind, meaning = ast.unparse(field.annotation), text.splitlines()[(field.end_lineno or 1) - 1]
            inside = [word for word in re.findall(r"\w+", kind) if word in records]
            names += [word for word in inside if word not in names]
            meaning = re.sub(r"\bNone\b", "null", meaning.partition("  # ")[2])
            lines.append(f"| `{ast.unparse(field.target)}` | {_plain(kind, inside)} | {_cell(meaning)} |")
        yield "\n".join([*lines, ""]).replace("None", "null")


def _plain(kind: str, records: Sequence[str]) -> str:
    """Returns the type of a key in words, with links to `records`."""
    words = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "None": "null"}
    for name, word in {**words, **{each: f"[{each}](#{each.lower()})" for each in records}}.items():
        kind = re.sub(rf"\b{name}\b", word, kind)
    kind = re.sub(r"Literal\[(.*)\]", r"\1", kind).replace(" | ", " or ")
    while (shorter := re.sub(r"tuple\[(.*), \.\.\.\]", r"list of \1", kind)) != kind:
        kind = shorter
    return re.sub(r"dict\[text, (.*)\]", r"object of \1", kind)


def keys(
    schema: dict[str, Any], node: dict[str, Any] | None = None, prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Yields every key of deploy.yaml as (path, default, meaning), through references, alternatives and arrays."""
    node = schema if node is None else node
    for name, entry in node.get("properties", {}).items():
        path = f"{prefix}{name}"
        default = "" if "default" not in entry or isinstance(entry["default"], dict) else _json(entry["default"])
        yield path, default, _meaning(schema, entry)
        for inner, suffix in _inside(schema, entry):
            yield from keys(schema, inner, f"{path}{suffix}.")


def _meaning(schema: dict[str, Any], entry: dict[str, Any]) -> str:
    said = entry.get("description", "")
    if not said and "$ref" in entry:
        said = schema["$defs"][entry["$ref"].rsplit("/", 1)[1]].get("description", "")
    return " ".join(str(said).split())


def _inside(schema: dict[str, Any], entry: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    if "$ref" in entry:
        yield from _inside(schema, schema["$defs"][entry["$ref"].rsplit("/", 1)[1]])
    for choice in (*entry.get("anyOf", ()), *entry.get("oneOf", ()), *entry.get("allOf", ())):
        yield from _inside(schema, choice)
    if isinstance(entry.get("items"), dict):
        yield from ((inner, "[]" + suffix) for inner, suffix in _inside(schema, entry["items"]))
    if "properties" in entry:
        yield entry, ""


def _json(value: Any) -> str:
    import json

    return f"`{json.dumps(value)}`"


def configuration_page() -> str:
    """Returns docs/deploy-yaml.md."""
    from knnkit.config import parse

    intro = (
        "# deploy.yaml\n\n"
        "[deploy.yaml](../deploy.yaml) in this repository is a complete example, with comments; `knnkit schema` prints "
        "the JSON Schema for editors. Relative paths start at the file; durations are `500ms`, `60s`, `5m`, `12h`, "
        "`90d`. An unknown key is an error that names the file, the line and the closest known key. Each entry of "
        "`models` takes the keys of `model`.\n\n"
        "| key | default | meaning |\n| --- | --- | --- |\n"
    )
    rows = [row for row in dict.fromkeys(keys(parse.json_schema())) if not row[0].startswith("models[].")]
    return (
        _WRITTEN + intro + "".join(f"| `{path}` | {_cell(default)} | {_cell(said)} |\n" for path, default, said in rows)
    )


def decision(path: Path) -> dict[str, str]:
    """Returns number, title, Date, Status and Supersedes of one record of docs/decisions."""
    text = path.read_text(encoding="utf-8")
    title = re.match(r"# (\d{3}): (.+)\n", text)
    header = dict(re.findall(r"^(Date|Status|Supersedes): (.+)$", text.split("\n**", 1)[0], re.MULTILINE))
    if title is None or not {"Date", "Status"} <= header.keys():
        raise ValueError(f"{path.name}: begin with `# NNN: title`, `Date: YYYY-MM-DD` and `Status: accepted`")
    return {"number": title[1], "title": title[2], "Supersedes": "", **header}


def decisions_page() -> str:
    """Returns docs/decisions/README.md."""
    intro = (
        "# Decisions\n\n"
        "One record for each choice that somebody may question: the problem, the decision, what else was tried, what "
        "was measured. A record stays when a later one replaces it; its status names the later one.\n\n"
        "| number | decision | date | status | supersedes |\n| --- | --- | --- | --- | --- |\n"
    )
    rows = [(path.name, decision(path)) for path in sorted((DOCS / "decisions").glob("[0-9]*.md"))]
    line = "| [{number}]({name}) | {title} | {Date} | {Status} | {Supersedes} |\n"
    return _WRITTEN + intro + "".join(line.format(name=name, **row) for name, row in rows)


def scikit_learn_page() -> str:
    from device_agent.shared.weights import KERNELS
    from knnkit.training import (
        sklearn_importer,
        sklearn_left_out,
        sklearn_metrics,
        sklearn_pipelines,
        sklearn_transforms,
    )

    linear = {*sklearn_transforms.CONVERSIONS, "every selector of sklearn.feature_selection"}
    bent = sklearn_pipelines.WALKS.keys()
    taken = {
        "Estimators": sorted(sklearn_importer.ESTIMATORS),
        "Around them": sklearn_importer.AROUND,
        "Transformers that become steps of the graph": sorted(linear - bent),
        "Transformers that become transforms of the table": sorted(bent),
        "Functions of FunctionTransformer": [f"np.{name}" for name in sorted(sklearn_pipelines.transforms.FUNCTIONS)],
        "Metrics": sorted({*sklearn_metrics.METRICS, *sklearn_metrics.MAPPED}),
        "Parameters of metrics": ["w of minkowski (weights of the features)", "V, VI", "p, from 1 to 16"],
        "Weights": ["distance", "uniform", *(f"knnkit.kernels.{name}(bandwidth)" for name in KERNELS)],
    }
    lists = {
        "Estimators": sklearn_left_out.ESTIMATORS,
        "Transformers": sklearn_left_out.TRANSFORMERS,
        "Metrics": sklearn_left_out.METRICS,
        "Weights": sklearn_left_out.WEIGHTS,
    }
    lines = [
        _WRITTEN,
        "# What is taken over from scikit-learn\n",
        "## Taken over\n",
        "| kind | names |",
        "| --- | --- |",
    ]
    lines += [f"| {kind} | {', '.join(names)} |" for kind, names in taken.items()]
    lines += [
        "\nA `ColumnTransformer` or `FeatureUnion` may hold all of these. Fit on `np.nan` for missing cells.\n",
        "## Left out\n",
        "A file or estimator with one of these is refused by its name, with the reason.\n",
    ]
    for kind, reasons in lists.items():
        lines += [f"### {kind}\n", "| names | why |", "| --- | --- |"]
        by_reason: dict[str, list[str]] = {}
        for name, why in sorted(reasons.items()):
            by_reason.setdefault(why, []).append(name)
        lines += [*(f"| {', '.join(names)} | {why} |" for why, names in by_reason.items()), ""]
    return "\n".join(lines).rstrip() + "\n"


PAGES = {
    "commands.md": commands_page,
    "agent.md": agent_page,
    "documents.md": documents_page,
    "deploy-yaml.md": configuration_page,
    "scikit-learn.md": scikit_learn_page,
    "decisions/README.md": decisions_page,
}


def main() -> None:
    DOCS.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        with contextlib.redirect_stderr(None):
            (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
