"""Every command, flag and key is documented, and the pages are what the program says today."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from device_agent.shared.protocol import constants
from knnkit.commands import COMMANDS
from knnkit.config import parse
from scripts import reference

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(reference.PAGES))
def test_a_reference_page_is_what_the_program_says(name: str) -> None:
    written = (reference.DOCS / name).read_text(encoding="utf-8")
    assert written == reference.PAGES[name](), "run: python -m scripts.reference"


def test_every_flag_of_every_command_says_what_it_does() -> None:
    parsers = {f"knnkit {n}": p for n, p in reference.knnkit_parsers().items()}
    parsers |= {f"device_agent {n}": p for n, p in reference.agent_parsers().items()}
    rows = [(name, typed, said) for name, parser in parsers.items() for typed, said in reference.arguments(parser)]
    assert len(rows) > 50
    assert [(name, typed) for name, typed, said in rows if len(said) < 4] == []
    assert [name for name, parser in parsers.items() if not parser.description] == []


def test_every_document_of_the_agent_is_described() -> None:
    page = reference.documents_page()
    lines = {"", "classify", "enrolled", "ring"}  # print lines, which their help describes
    assert [
        name for name in reference.agent_parsers().keys() - lines if f"`{name}" not in page.replace("device_agent ", "")
    ] == []
    linked = set(re.findall(r"\]\(#(\w+)\)", page))
    assert linked == linked & {name.lower() for name in re.findall(r"^## (\w+)$", page, re.MULTILINE)}


def test_every_key_of_deploy_yaml_says_what_it_is_for() -> None:
    rows = list(reference.keys(parse.json_schema()))
    assert {"model.data.label", "fleet.targets[].host", "rollout.waves", "models[].gates.accuracy"} <= {
        r[0] for r in rows
    }
    assert [path for path, _, said in rows if len(said) < 4] == []


def test_the_example_shows_every_key() -> None:
    """deploy.yaml is the documentation: each key stands in it, in use or in a comment."""
    example = (ROOT / "deploy.yaml").read_text(encoding="utf-8")
    names = {path.rsplit(".", 1)[-1].removesuffix("[]") for path, _, _ in reference.keys(parse.json_schema())}
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b: ?", example)] == []


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_readme_or_a_guide_names_every_command(command: str) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages if page.name not in reference.PAGES)
    assert f"knnkit {command}" in text


def test_the_exit_codes_in_the_pages_are_those_of_the_contract() -> None:
    codes = {0: constants.EXIT_OK, 1: constants.EXIT_FAILED, 2: constants.EXIT_USAGE, 3: constants.EXIT_UNREACHABLE}
    codes |= {4: constants.EXIT_REFUSED, 5: constants.EXIT_LOCKED}
    assert all(number == code for number, code in codes.items())
    for page in ("README.md", "docs/commands.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert all(re.search(rf"\b{number} ", text) for number in codes), page


def _links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))


def test_no_link_between_the_pages_is_broken() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    local = [(page, link) for page in pages for link in _links(page) if "://" not in link]
    assert len(local) > 5
    assert [(page.name, link) for page, link in local if not (page.parent / link).exists()] == []


def test_every_script_that_the_pages_name_is_there() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    named = {name for page in pages for name in re.findall(r"\bscripts/[a-z-]+\b", page.read_text(encoding="utf-8"))}
    assert {"scripts/demo", "scripts/test"} <= named
    assert [name for name in sorted(named) if not (ROOT / name).exists() and not (ROOT / f"{name}.py").exists()] == []


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "scripts/test" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1].endswith("exec scripts/test")


def _command_lines() -> list[tuple[str, list[str]]]:
    found = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        blocks = re.findall(r"```\w*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        for line in "\n".join(blocks).replace("\\\n", "").splitlines():
            for part in line.split("|"):
                words = shlex.split(part, comments=True)
                if words[:1] == ["knnkit"]:
                    found.append((page.name, words[1:]))
                elif words[1:3] == ["-m", "device_agent"]:
                    found.append((page.name, ["device_agent", *words[3:]]))
    return found


@pytest.mark.parametrize(
    "words", [words for _, words in _command_lines()], ids=[" ".join(words) for _, words in _command_lines()]
)
def test_a_command_line_in_the_pages_is_one_that_the_program_takes(words: list[str]) -> None:
    agent = words[0] == "device_agent"
    parsers = reference.agent_parsers() if agent else reference.knnkit_parsers()
    command, *arguments = words[1:] if agent else words
    parsers[command].parse_args(arguments)


def test_command_lines_were_found_in_the_pages() -> None:
    assert {words[0] for _, words in _command_lines()} >= {"deploy", "parity", "trust", "device_agent"}


def test_the_changelog_knows_this_version() -> None:
    from device_agent import __version__

    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text()))
    files = (ROOT / "tests").rglob("test_*.py")
    written = {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)}
    assert named
    assert named <= written
