"""Checks commit subjects and plain English.

`scripts/check` runs it; `python scripts/prose.py [PATH ...]` checks only files under these paths. Two checks:

- **Commit subjects** that `origin/main` does not have yet (if there is one): at most 72 characters, in the imperative,
  a capital letter first, no full stop. `area: verb …` is allowed.
- **Prose.** The module docstrings of `knnkit` and `device_agent` begin with a line of at most ten words. Docstrings,
  comments, messages and pages use none of the words in `PRIVATE`. Code in backticks or fences is not read.

Prose is checked under `HELD` only. After rewriting a folder, add its path there, in the same commit. To see what
remains in a folder: `python scripts/prose.py knnkit/fleet`. Standard library only.
"""

from __future__ import annotations

import ast
import io
import itertools
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Paths whose prose is plain English already. A path covers everything below it.
HELD = (
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "deploy.yaml",
    "device_agent",
    "docs",
    "knnkit/__init__.py",
    "knnkit/__main__.py",
    "knnkit/cli.py",
    "knnkit/config",
    "knnkit/data",
    "knnkit/api.py",
    "knnkit/commands",
    "knnkit/errors.py",
    "knnkit/fleet",
    "knnkit/model",
    "knnkit/provision",
    "knnkit/release",
    "knnkit/render",
    "knnkit/training",
    "knnkit/transport",
    "scripts",
)
#: Written by `scripts/reference.py` out of help texts: correct those.
GENERATED = ("docs/agent.md", "docs/commands.md", "docs/deploy-yaml.md", "docs/documents.md")

#: Private words, and what to write instead. A match may run over a line break.
PRIVATE = {
    r"(?<!there\s)(?:is|are|was|were)\s+no\s+(?!(?:longer|more|less|better|worse|faster|slower)\b)\w+": "is not a …",
    r"told(?!\s+apart)": "reported, printed, given",
    r"said": "reported, printed, stated",
    r"mend(?:s|ed|ing)?": "repair, fix, correct",
    r"lets?\s+go": "release, drop, close",
    r"(?:takes?|taken|took|taking)\s+up": "resume, reuse, continue with",
    r"(?:comes?|came)\s+to": "reach, amount to, result in",
    r"be\s+had": "is available, exists",
    r"who(?:m)?ever": "the person who, the host that, anyone who",
    r"anew": "again, from scratch",
    r"(?:became|becomes?)\s+of": "what happened to",
    r"makes?\s+nothing\s+of": "treat as zero, ignore",
}
PATTERNS = [(re.compile(rf"\b{pattern}\b", re.IGNORECASE), instead) for pattern, instead in PRIVATE.items()]
CODE = re.compile(r"```.*?```|``[^`]*``|`[^`]*`", re.DOTALL)

SUBJECT_LIMIT, FIRST_LINE_WORDS = 72, 10
VERBS = {"bring", "embed", "feed", "need", "ping", "seed", "shed", "speed", "spread", "string"}


def subject_faults(subject: str) -> list[str]:
    """Returns the faults in the first line of a commit message."""
    area, _, rest = subject.partition(": ")
    has_area = bool(rest) and area == area.lower() and " " not in area
    first = (rest if has_area else subject).split(" ", 1)[0]
    faults = []
    if len(subject) > SUBJECT_LIMIT:
        faults.append(f"{len(subject)} characters, at most {SUBJECT_LIMIT}; put the reason into the body")
    if not (has_area or first[:1].isupper()) or subject.endswith("."):
        faults.append("begin with a capital letter, end without a full stop")
    if first.lower().endswith(("ed", "ing")) and first.lower() not in VERBS:
        faults.append(f"use the imperative in place of {first!r}")
    return faults


def chunks(path: str, source: str) -> Iterator[tuple[int, str]]:
    """Yields the prose of one file as (line, text): a whole page, or each string and comment block of Python."""
    if not path.endswith(".py"):
        return (yield 1, source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
    comments = {
        token.start[0]: token.string.lstrip("#: ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    for _, block in itertools.groupby(enumerate(comments), lambda pair: pair[1] - pair[0]):
        lines = [line for _, line in block]
        yield lines[0], "\n".join(comments[line] for line in lines)


def private_words(path: str, source: str) -> Iterator[str]:
    """Yields one line for each private word: its place, the word, and what to write instead."""
    for line, text in chunks(path, source):
        plain = CODE.sub(lambda code: re.sub(r"[^\n]", "_", code[0]), text)
        for pattern, instead in PATTERNS:
            for found in pattern.finditer(plain):
                at = line + plain.count("\n", 0, found.start())
                yield f"{path}:{at}: {' '.join(found[0].split())!r}: write: {instead}"


def first_line(path: str, source: str) -> Iterator[str]:
    """Yields a fault if the module docstring is missing or its first line is too long."""
    words = (ast.get_docstring(ast.parse(source)) or "").split("\n", 1)[0].split()
    if source.strip() and not 0 < len(words) <= FIRST_LINE_WORDS:
        yield f"{path}:1: the docstring's first line has {len(words)} words, at most {FIRST_LINE_WORDS}"


def prose_faults(paths: Iterable[str], root: Path = ROOT) -> list[str]:
    """Returns all faults in these files."""
    faults: list[str] = []
    for path in paths:
        source = (root / path).read_text(encoding="utf-8")
        faults += private_words(path, source)
        if path.endswith(".py") and path.startswith(("knnkit/", "device_agent/")):
            faults += first_line(path, source)
    return faults


def git(*arguments: str) -> list[str]:
    """Returns the lines that git prints; no lines if it fails."""
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()


def covered(path: str, prefixes: Iterable[str]) -> bool:
    """Whether people write this text, and it lies under one of the prefixes."""
    text = path.endswith((".py", ".md", ".yaml", ".sh")) or "." not in path
    return text and path not in GENERATED and any(path == p or path.startswith(p + "/") for p in prefixes)


def main(prefixes: list[str]) -> int:
    """Prints each fault on a line; returns 1 if there are any."""
    faults = []
    for commit, _, subject in (line.partition(" ") for line in git("log", "--format=%h %s", "origin/main..HEAD")):
        faults += [f"commit {commit}: {fault}: {subject}" for fault in subject_faults(subject)]
    files = [path for path in git("ls-files") if covered(path, prefixes or HELD) and (ROOT / path).is_file()]
    faults += prose_faults(files)
    print("\n".join(faults), end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main([argument.rstrip("/") for argument in sys.argv[1:]]))
