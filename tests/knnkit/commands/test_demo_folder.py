"""`knnkit demo --out DIR`: writes into a folder of its own, never into one where somebody works."""

from __future__ import annotations

from pathlib import Path

import pytest

from knnkit import cli
from knnkit.commands import _demo_article


@pytest.fixture(autouse=True)
def _not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_demo_article.Demo, "run", lambda self, *, as_json: self._configure() and 0)
    monkeypatch.setattr(_demo_article, "require_build_extra", lambda: None)


def test_the_users_own_deploy_yaml_and_keys_are_left_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy.yaml").write_text("model: {name: fruit}\n")
    assert cli.main(["demo", "--out", "."]) == 2
    assert (tmp_path / "deploy.yaml").read_text() == "model: {name: fruit}\n"
    assert "--out .: it holds deploy.yaml, and is not the folder of an earlier demo" in capsys.readouterr().err


def test_a_folder_with_anything_else_in_it_is_not_one_to_remove_afterwards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").touch()
    assert cli.main(["demo", "--out", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert f"try: --out {tmp_path / 'knnkit-demo'}" in capsys.readouterr().err


def test_an_empty_folder_and_one_of_an_earlier_demo_are_taken(tmp_path: Path) -> None:
    assert cli.main(["demo", "--out", str(tmp_path)]) == 0
    with (tmp_path / "deploy.yaml").open("a") as file:
        file.write("rollout: {concurrency: 1}\n")
    assert cli.main(["demo", "--out", str(tmp_path)]) == 0
