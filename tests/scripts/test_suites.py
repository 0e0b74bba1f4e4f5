"""scripts/test runs the suites that are named, or those of the files that are named, and refuses other words."""

from __future__ import annotations

import pytest
import suites

ALL = [suites.Suite("scripts"), suites.Suite("knnkit/model"), suites.Suite("knnkit/data")]
FILE = "tests/scripts/test_suites.py"


@pytest.mark.parametrize(
    ("words", "runs", "rest"),
    [
        (["scripts"], {"scripts": ()}, []),
        (["knnkit", "-k", "table"], {"knnkit/model": (), "knnkit/data": ()}, ["-k", "table"]),
        ([FILE, "-x"], {"scripts": (FILE,)}, ["-x"]),
        ([f"{FILE}::test_a", "knnkit/model"], {"scripts": (f"{FILE}::test_a",), "knnkit/model": ()}, []),
        ([FILE, "scripts"], {"scripts": ()}, []),
        (["knnkit", "tests/knnkit/model/suite.toml"], {"knnkit/model": (), "knnkit/data": ()}, []),
        ([], {"scripts": (), "knnkit/model": (), "knnkit/data": ()}, []),
    ],
)
def test_words_are_suites_or_files(
    words: list[str], runs: dict[str, tuple[str, ...]], rest: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(suites.ROOT)
    options, extra = suites.parse(ALL, words)
    assert {suite.name: suite.files for suite in suites.chosen(ALL, options)} == runs
    assert extra == rest


@pytest.mark.parametrize("word", ["model", "tests/none.py", "/", "README.md"])
def test_another_word_is_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        suites.parse(ALL, [word])
    assert f"{word} is neither a suite nor a file of tests" in capsys.readouterr().err
