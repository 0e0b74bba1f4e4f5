"""BasicMotions, as aeon ships it: four activities of a watch, cut into windows on the host and from a live stream.

scikit-learn on features in float64 says what each window is; a device must say the same.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from support.device import ROOT, Device
from support.releases import Releases

from knnkit.config import parse
from knnkit.model.reference import window_features
from knnkit.release.build import Built, build_release
from knnkit.release.signing import FileSigner

DATA = Path(os.environ.get("KNNKIT_TEST_CACHE") or ROOT / ".cache" / "tests") / "aeon-BasicMotions"
COLUMNS = ("ax", "ay", "az", "gx", "gy", "gz")
FEATURES = (("mean", 0), ("std", 0), ("min", 0), ("max", 0), ("rms", 0), ("zero_crossings", 0), ("spectrum", 8))
ROWS, HOP = 40, 20
DEPLOY = """
model:
  name: motions
  data: {files: 'train/*.csv', label: activity}
  test: {file: test.csv, label: activity}
  input:
    window: {columns: [ax, ay, az, gx, gy, gz], rows: 40, hop: 20, recording: case, time: at, gap: 0.15}
    features: [mean, std, min, max, rms, zero_crossings, spectrum: 8]
  k: 3
  scale: standard
gates: {accuracy: 0.95}
"""


def cases(part: str) -> list[tuple[np.ndarray, str]]:
    """Returns (100, 6) samples at 10 Hz and the activity of each recording."""
    lines = (DATA / f"BasicMotions_{part}.ts").read_text().lower().split("@data")[1].split()
    parts = [line.split(":") for line in lines]
    return [(np.array([each.split(",") for each in found[:-1]], float).T, found[-1]) for found in parts]


def texts(number: int, samples: np.ndarray, activity: str) -> list[str]:
    """Returns the lines of a recording, with the times as text."""
    return [
        f"case{number},2026-11-29T10:{number:02d}:{row / 10:06.3f}Z,{','.join(map(repr, sample))},{activity}"
        for row, sample in enumerate(samples.tolist())
    ]


HEADER = f"case,at,{','.join(COLUMNS)},activity"


def windows(found: list[tuple[np.ndarray, str]]) -> tuple[np.ndarray, list[str]]:
    cut = [(one[start : start + ROWS], label) for one, label in found for start in range(0, 101 - ROWS, HOP)]
    return window_features.compute(np.array([one for one, _ in cut]), FEATURES), [label for _, label in cut]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Built:
    folder = tmp_path_factory.mktemp("motions")
    (folder / "train").mkdir()
    for number, case in enumerate(cases("TRAIN")):
        (folder / "train" / f"{number}.csv").write_text("\n".join([HEADER, *texts(number, *case)]) + "\n")
    lines = [line for number, case in enumerate(cases("TEST")) for line in texts(number, *case)]
    (folder / "test.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    build = parse.parse(DEPLOY, base=folder).builds()[0]
    return build_release(build, FileSigner.load(releases.private_key), out=folder / "release")


def test_a_live_stream_gets_the_labels_of_scikit_learn(built: Built, releases: Releases, tmp_path: Path) -> None:
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, labels = windows(cases("TRAIN"))
    asked, truth = windows(cases("TEST"))
    expected = make_pipeline(StandardScaler(), KNeighborsClassifier(3)).fit(rows, labels).predict(asked).tolist()
    assert built.info.n_train == len(rows)
    assert len(set(expected)) == 4
    device = Device(tmp_path / "root", releases)
    device.install(built.directory)
    text = (built.directory.parent / "test.csv").read_bytes()
    said = device.run("classify", "--stream", "--format", "csv", "--ignore-extra", input=text)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("first_line,last_line,first_time,last_time,label\n2,41,2026-11-29T10:00:00Z,")
    assert [line.rpartition(",")[2] for line in said.out.splitlines()[1:]] == expected
    assert device.ask("status")["cells"] is None
    right = np.mean([one == other for one, other in zip(expected, truth)])
    print(f"accuracy {right:.4f} on {len(truth)} windows")
    assert built.accuracy == pytest.approx(right)


def test_a_gap_is_counted_in_status(built: Built, releases: Releases, tmp_path: Path) -> None:
    device = Device(tmp_path / "root", releases)
    device.install(built.directory)
    lines = (built.directory.parent / "test.csv").read_text().splitlines()[:1101]
    broken = [*lines[:50], "broken", *lines[51:130], *lines[135:260], *lines[230:]]
    for _ in range(2):
        device.run("classify", "--stream", "--ignore-extra", input="\n".join(broken) + "\n")
    assert device.ask("status")["cells"]["gaps"] == {"lines": 2, "times": 4}
    assert "gaps       lines 2, times 4" in device.run("status").out
