"""`knnkit demo --picture` and `--sound`: networks before the search, on a real device environment."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from test_demo import Run, demo


def check(found: Run, least: float) -> dict[str, int]:
    document = json.loads(found.stdout)
    own = document["embedding"]
    assert document["right"] / document["unseen"] >= least
    assert (own["above"], own["search_different"], own["labels_different"]) == (0, 0, 0)
    assert own["labels_same"] + own["labels_open"] == own["rows"] > 10
    assert Path(document["picture"]).read_bytes().startswith(b"\x89PNG")
    assert "golden rows" in Path(document["report"]).read_text(encoding="utf-8").lower()
    return dict(document)


def test_pictures_that_the_model_never_saw_get_their_label(tmp_path: Path) -> None:
    found = demo(tmp_path, "--picture", "--json")
    assert check(found, 0.85)["unseen"] == 100
    assert (found.folder / "release" / "stage-1.tflite").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["knnkit-demo"]


@pytest.mark.skipif(
    shutil.which("espeak-ng") is None or importlib.util.find_spec("pyopen_wakeword") is None,
    reason="needs espeak-ng and pyopen-wakeword (pip install '.[demo]')",
)
def test_words_of_voices_that_the_model_never_heard_get_their_label(tmp_path: Path) -> None:
    found = demo(tmp_path, "--sound", "--json")
    assert check(found, 0.92)["unseen"] == 117
