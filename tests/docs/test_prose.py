"""scripts/prose.py finds private words, long first lines and subjects that are not imperative."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import prose


def found(path: str, source: str) -> list[str]:
    return list(prose.private_words(path, source))


@pytest.mark.parametrize(
    "text",
    ["This is no\nrelease.", "The host is told.", "It said so.", "A repair mends it.", "They let go of it.",
     "What was left is taken up.", "It came to nothing.", "None is to be had.", "Whoever asks, waits.",
     "It is made anew.", "Look what became of it."],
)  # fmt: skip
def test_a_private_word_is_found_in_pages_strings_and_comments(text: str) -> None:
    assert len(found("docs/a.md", text)) == 1
    assert len(found("knnkit/a.py", f'"""{text}"""\n')) == 1
    assert len(found("knnkit/a.py", "".join(f"# {line}\n" for line in text.splitlines()))) == 1
    assert len(found("knnkit/a.py", f"raise ValueError(f{text!r})\n")) == 1


@pytest.mark.parametrize(
    "text",
    ["There is no\nwheel.", "It is no longer there, and no more.", "It is no faster.", "They can be told apart.",
     "The flag `said` is code.", "```\nknnkit told\n```", "A recommended saidiya comment."],
)  # fmt: skip
def test_plain_words_and_code_pass(text: str) -> None:
    assert found("docs/a.md", text) == []


def test_an_identifier_is_not_prose() -> None:
    assert found("a.py", "said = told['said']\n") == []


def test_a_fault_names_file_line_and_replacement() -> None:
    assert found("a.py", "x = 1\n\n# One.\n# It is told.\n") == ["a.py:4: 'told': write: reported, printed, given"]
    assert found("a.md", "One.\n```\nx\n```\nIt is told.\n")[0].startswith("a.md:5:")


@pytest.mark.parametrize(("words", "faults"), [(10, 0), (11, 1), (0, 1)])
def test_a_first_line_has_at_most_ten_words(words: int, faults: int) -> None:
    source = f'"""{" ".join(["word"] * words)}\n\n{"More." if words else ""}\n"""\nx = 1\n'
    assert len(list(prose.first_line("knnkit/a.py", source))) == faults
    assert list(prose.first_line("knnkit/__init__.py", "")) == []


@pytest.mark.parametrize(
    "subject",
    [
        "Add plain words",
        "Merge branch 'docs'",
        "tests: share the file that fails",
        "Bring the index",
        "x" * 0 + "A" * 72,
    ],
)
def test_an_imperative_subject_passes(subject: str) -> None:
    assert prose.subject_faults(subject) == []


@pytest.mark.parametrize(
    "subject", ["Added words", "Adding words", "add words", "Add words.", "A" * 73, "tests: shared the file"]
)
def test_another_subject_is_found(subject: str) -> None:
    assert len(prose.subject_faults(subject)) == 1


def test_files_below_a_held_path_are_read_and_generated_pages_are_not(tmp_path: Path) -> None:
    assert prose.covered("docs/decisions/001.md", ["docs"])
    assert prose.covered("scripts/check", ["scripts"])
    assert not prose.covered("docs/commands.md", ["docs"])
    assert not prose.covered("docs/benchmarks/speed-avx512f.svg", ["docs"])
    assert not prose.covered("docsy/a.md", ["docs"])
    (tmp_path / "knnkit").mkdir()
    (tmp_path / "knnkit" / "a.py").write_text('"""A file that is told."""\n', encoding="utf-8")
    assert len(prose.prose_faults(["knnkit/a.py"], tmp_path)) == 1


def test_every_held_path_exists() -> None:
    assert [path for path in prose.HELD if not (prose.ROOT / path).exists()] == []
