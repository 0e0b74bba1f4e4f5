"""Signed releases to test with, built by the real builder in one process of its own and kept until its code changes.

    def test_it(releases: Releases, tmp_path: Path) -> None:
        releases["iris"]  # a release directory; never write to it
        releases.variant("iris", tmp_path / "r", sequence=9)  # the same model under another manifest

No test process imports TensorFlow for it: tflite_runtime may be imported beside this. The cache is KNNKIT_TEST_CACHE
(scripts/test sets it), else `.cache/tests` in the clone; its key is a hash of every source that has a part in a build.
`python -m support.releases` (in tests/) builds them by hand and prints where they are.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from device_agent.shared.protocol import constants

ROOT = Path(__file__).resolve().parents[2]

#: What is built: name -> deploy.yaml. All are small; each has something that the others have not.
RECIPES: dict[str, str] = {
    # Names as labels, a reject threshold, scaling.
    "iris": """
        model: {name: iris, data: {sklearn: iris}, k: 3, scale: standard, reject: 0.99}
        release: {version: 1.0.0, sequence: 10}
        gates: {accuracy: 0.8}
    """,
    # The next release of the same model; some answers differ from those of `iris`.
    "iris-next": """
        model: {name: iris, data: {sklearn: iris}, k: 11, scale: standard, reject: 0.95}
        release: {version: 1.1.0, sequence: 11}
        gates: {accuracy: 0.8}
    """,
    # One class gets nearly every row: two classes are forgotten.
    "iris-forgets": """
        model: {name: iris, data: {sklearn: iris}, k: 99, scale: standard, label_sets: 0.9}
        release: {version: 1.2.0, sequence: 12}
    """,
    # Rows may be taught on the device, a few of each label.
    "taught": """
        model: {name: taught, data: {sklearn: iris}, k: 3, scale: standard, enrol: {rows: 20, per_label: 8}}
        release: {version: 1.0.0, sequence: 10}
    """,
    # Its next release allows less, and does not use rows of before.
    "taught-next": """
        model: {name: taught, data: {sklearn: iris}, k: 5, enrol: {rows: 20, new_labels: false, may_override: true}}
        release: {version: 1.1.0, sequence: 11}
    """,
    # The article's experiment: two features, five classes, numbers as labels.
    "blobs": """
        model: {name: blobs, data: {sklearn: blobs}, k: 3}
        release: {version: 1.0.0, sequence: 10}
        gates: {accuracy: 0.9}
    """,
    # Sixty-four features, weights by distance.
    "digits": """
        model: {name: digits, data: {sklearn: digits}, k: 5, weights: distance}
        release: {version: 1.0.0, sequence: 10}
        gates: {accuracy: 0.9}
    """,
    # Digits from 0 to 8: a board is taught the 9.
    "no-nines": """
        model: {name: digits, data: {file: no-nines.csv, label: digit}, k: 1, enrol: {rows: 500}}
        release: {version: 1.0.0, sequence: 10}
    """,
    # So many numbers that candidates can be searched in eight bits.
    "spectra": """
        model: {name: spectra, data: {file: spectra.csv, label: kind}, k: 3}
        release: {version: 1.0.0, sequence: 10}
        gates: {accuracy: 0.9}
    """,
    # Missing cells, categories, and columns that no model has.
    "plants": """
        model:
          name: plants
          data:
            file: plants.csv
            label: kind
            drop: [when]
            missing: {length: median, soil: constant}
            categories: {soil: one-hot, size: [small, large]}
            unknown_category: ignore
          k: 3
          scale: standard
          ignore_extra: true
        release: {version: 1.0.0, sequence: 10}
        gates: {accuracy: 0.9}
    """,
    # Two label columns, missing cells and categories.
    "plants-both": """
        model:
          name: plants
          data: {file: plants.csv, label: [kind, size], drop: [when], missing: {length: median, soil: constant},
            categories: {soil: one-hot}, unknown_category: ignore}
          k: 3
          weights: distance
          scale: standard
          ignore_extra: true
        release: {version: 1.0.0, sequence: 10}
        gates: {accuracy: 0.3, column_accuracy: {kind: 0.9}}
    """,
    # Keeps rows for people to label: raw cells of numbers and categories; some are "unknown".
    "watched": """
        model:
          name: plants
          data:
            file: plants.csv
            label: kind
            drop: [when]
            missing: {length: median, soil: constant}
            categories: {soil: one-hot, size: [small, large]}
            unknown_category: ignore
          k: 3
          scale: standard
          reject: 0.95
          keep: {unknown: 5, uncertain: 4, random: 6}
        release: {version: 2.0.0, sequence: 20}
    """,
    # Windows of an accelerometer; the next release has the same windows, the last one features of longer ones.
    "motion": """
        model:
          name: motion
          data: {files: 'motion/*/*.csv', label: activity}
          input: {window: {columns: [ax, ay, az], rows: 32, hop: 16, time: t, gap: 0.1}}
        release: {version: 1.0.0, sequence: 10}
        gates: {accuracy: 0.8}
    """,
    "motion-next": """
        model:
          name: motion
          data: {files: 'motion/*/*.csv', labels: motion/labels.csv}
          input: {window: {columns: [ax, ay, az], rows: 32, hop: 16, time: t, gap: 0.1}}
        release: {version: 1.1.0, sequence: 11}
    """,
    "motion-long": """
        model:
          name: motion
          data: {files: 'motion/*/*.csv', labels: folder}
          input: {window: {columns: [ax, ay, az], rows: 40, time: t, gap: 0.1}, features: [mean, std, spectrum: 5]}
          scale: standard
          test: 0
        release: {version: 1.2.0, sequence: 12}
    """,
    # The same as plants, and rows may be taught.
    "plants-taught": """
        model:
          name: plants
          data: {file: plants.csv, label: kind, drop: [when], missing: {length: median, width: median, soil: constant},
            categories: {soil: one-hot, size: [small, large]}, unknown_category: ignore}
          k: 1
          scale: standard
          ignore_extra: true
          enrol: {rows: 5}
        release: {version: 1.0.0, sequence: 10}
    """,
    # Another metric, and another scaler.
    "wine": """
        model: {name: wine, data: {sklearn: wine}, k: 4, metric: manhattan, scale: robust}
        release: {version: 1.0.0, sequence: 10}
    """,
    # Two stages before the search: windows of float32, then a quantised file.
    "pixels": """
        model:
          name: pixels
          data: {sklearn: digits}
          input: {stages: [{file: windows.tflite, frames: 16, hop: 8, multiply: 0.5, add: 0.25}, mixer.tflite]}
          k: 3
          reject: 0.99
        release: {version: 1.0.0, sequence: 10}
        gates: {accuracy: 0.8}
    """,
    # Sounds in a folder for each label, of two takes; one stage on windows, pooled.
    "tones": """
        model:
          name: tones
          data: {files: "tones/{pitch}/{take}-*.wav", label: pitch}
          split: {group: take}
          input:
            audio: {rate: 8000, seconds: 0.1, full_scale: 16}
            stages: [{file: windows.tflite, frames: 16, hop: 8}]
            pool: [mean, max, std]
          k: 3
          reject: 0.99
        release: {version: 1.0.0, sequence: 10}
        gates: {accuracy: 0.9}
    """,
    # Two targets instead of classes, and 200 columns with missing cells.
    "wifi": """
        model:
          name: wifi
          data: {file: wifi.csv, target: [east, north], missing: {"WAP*": -105.0}}
          test: {file: asked.csv}
          k: 5
          weights: distance
        release: {version: 1.0.0, sequence: 10}
        gates: {rmse: 8.0, max_error: {north: 60, default: 50}}
    """,
    # The same with another metric; positions may be taught, also where they change answers.
    "wifi-taught": """
        model:
          name: wifi
          data: {file: wifi.csv, target: [east, north], missing: {"WAP*": -105.0}}
          test: {file: asked.csv}
          k: 5
          weights: distance
          metric: cosine
          enrol: {rows: 20, may_override: true}
        release: {version: 1.0.0, sequence: 10}
    """,
    # A pipeline of scikit-learn: missing numbers are filled and scaled, text becomes features, one column is dropped.
    "penguins": """
        model: {name: penguins, data: {skops: penguins.skops}, test: {file: penguins.csv, label: species}}
        release: {version: 1.0.0, sequence: 10}
        gates: {accuracy: 0.9}
    """,
    # The same with the Palmer penguins themselves.
    "palmer": """
        model: {name: palmer, data: {skops: palmer.skops}, test: {file: palmer.csv, label: species}}
        release: {version: 1.0.0, sequence: 10}
        gates: {accuracy: 0.95}
    """,
    # What the graph does not compute: a metric, a kernel and a radius; and outlier factors.
    "places": """
        model: {name: places, data: {file: places.csv, label: region}, test: {file: other-places.csv},
                metric: haversine, radius: 0.004, weights: gaussian, bandwidth: 0.002, k: 3}
        release: {version: 1.0.0, sequence: 10}
        gates: {accuracy: 0.9}
    """,
    "strange": """
        model: {name: strange, data: {skops: strange.skops}}
        release: {version: 1.0.0, sequence: 10}
    """,
    # Two features near 0, and then in metres of UTM, which have an origin.
    "plots-near": """
        model: {name: plots, data: {file: near.csv, label: y}, k: 3, test: 0}
        release: {version: 1.0.0, sequence: 10}
    """,
    # The same columns, and missing cells that are filled.
    "plots-gaps": """
        model: {name: plots, data: {file: near.csv, label: y, missing: median}, k: 3, test: 0}
        release: {version: 1.2.0, sequence: 12}
    """,
    "plots": """
        model: {name: plots, data: {file: utm.csv, label: y}, k: 3, test: {file: queries.csv}}
        release: {version: 1.1.0, sequence: 11}
    """,
}
#: Seconds since 1970 of every build: same sources, same bytes.
CREATED = 1_767_225_600
KEY = Path("keys") / "signing"
#: Builds that stay in the cache: another work tree that shares it may be using one.
KEPT = 8
_SOURCES = (
    *(f"knnkit/{room}" for room in ("config", "data", "evaluation", "model", "training", "release")),
    "device_agent",
    "tests/support/releases.py",
    "tests/support/offsets.py",
    "tests/support/signals.py",
    "tests/support/stages.py",
    "tests/support/wifi.py",
    "tests/support/penguins.py",
    "tests/support/palmer.py",
    "tests/support/places.py",
)


@dataclasses.dataclass(frozen=True)
class Releases:
    """The folder that holds them, and the key pair that signed them."""

    folder: Path

    @property
    def private_key(self) -> Path:
        """The key that signed all these releases."""
        return self.folder / KEY.with_suffix(".pem")

    @property
    def public_key(self) -> Path:
        """The public key that a device must trust to accept these releases."""
        return self.folder / KEY.with_suffix(".pub")

    def __getitem__(self, name: str) -> Path:
        if name not in RECIPES:
            raise KeyError(f"{name!r} is not one of {', '.join(RECIPES)}")
        return self.folder / "releases" / name

    def copy(self, name: str, out: Path) -> Path:
        """Copies a release to `out`, to be damaged."""
        shutil.copytree(self[name], out)
        return out

    def variant(self, name: str, out: Path, **changes: Any) -> Path:
        """Copies a release to `out`, changes its manifest (`gates=...`, `sequence=...`) and signs it again."""
        from knnkit.release import manifest
        from knnkit.release.signing import FileSigner, sign_release

        self.copy(name, out)
        path = out / constants.MANIFEST_FILE
        changed = dataclasses.replace(manifest.read_manifest(path.read_bytes()), **changes)
        path.write_bytes(manifest.write_manifest(changed))
        sign_release(out, FileSigner.load(self.private_key))
        return out


@pytest.fixture(scope="session")
def releases() -> Releases:
    """The releases of RECIPES, built once."""
    return provide()


def provide() -> Releases:
    """Returns the releases; builds them unless the same code has built them before."""
    cache = Path(os.environ.get("KNNKIT_TEST_CACHE") or ROOT / ".cache" / "tests")
    folder = cache / f"releases-{_fingerprint()}"
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "releases.lock"):
        if not folder.exists():
            newest_last = sorted(cache.glob("releases-*"), key=lambda path: path.stat().st_mtime)
            for stale in newest_last[:-KEPT]:
                shutil.rmtree(stale)
            part = cache / "releases.part"
            shutil.rmtree(part, ignore_errors=True)
            _build(part)
            part.rename(folder)
    return Releases(folder)


def _fingerprint() -> str:
    digest = hashlib.sha256(sys.version.encode())
    for package in ("tensorflow", "numpy", "scikit-learn", "cryptography"):
        digest.update(f"{package} {importlib.metadata.version(package)}\n".encode())
    for source in (ROOT / name for name in _SOURCES):
        for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(folder: Path) -> None:
    command = [sys.executable, "-c", _PROGRAM, str(ROOT), str(folder)]
    env = os.environ | {"SOURCE_DATE_EPOCH": str(CREATED), "TF_CPP_MIN_LOG_LEVEL": "2"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    if result.returncode:
        raise RuntimeError(f"the releases to test with could not be built:\n{result.stderr[-4000:]}")


_PROGRAM = """
import sys, textwrap
from pathlib import Path
import numpy as np
root, folder = sys.argv[1:]
sys.path[:0] = [root, root + "/tests"]
from knnkit.config import parse as config
from knnkit.release import keys
from knnkit.release.build import build_release
from knnkit.release.signing import FileSigner
from support import offsets, palmer, penguins, places, releases, signals, stages, wifi
folder = Path(folder)
(folder / "keys").mkdir(parents=True)
(folder / "releases").mkdir()
pair = keys.generate(folder / releases.KEY)
signer = FileSigner.load(pair.private)
rng = np.random.default_rng(0)
kinds = rng.integers(0, 6, 5000)
table = rng.normal(size=(6, 80))[kinds] * 3.0 + rng.normal(size=(5000, 80))
with (folder / "spectra.csv").open("w") as file:
    file.write(",".join([*(f"band{band}" for band in range(80)), "kind"]) + "\\n")
    for row, kind in zip(table, kinds):
        file.write(",".join([*(f"{value:.4f}" for value in row), "abcdef"[kind]]) + "\\n")
with (folder / "plants.csv").open("w") as file:
    file.write("when,length,width,soil,size,kind\\n")
    for number in range(300):
        kind = number % 3
        length = "" if number % 11 == 0 else f"{kind * 3 + rng.normal(0, 0.3):.3f}"
        soil = "" if number % 17 == 0 else ["sand", "clay", "loam \u00e9"][kind]
        size = ["small", "large"][number % 2]
        file.write(f"2024-01-{number % 28 + 1:02d},{length},{kind + rng.normal(0, 0.1):.3f},{soil},{size},k{kind}\\n")
penguins.dump(folder / "penguins.skops")
penguins.write(folder / "penguins.csv", *penguins.birds(120, seed=2))
palmer.write(folder)
places.write(folder)
signals.write(folder / "motion")
wifi.write(folder / "wifi.csv", *wifi.fingerprints(400, seed=2))
wifi.write(folder / "asked.csv", *wifi.fingerprints(80, seed=3))
from sklearn.datasets import load_digits
images, digits = load_digits(return_X_y=True)
with (folder / "no-nines.csv").open("w") as file:
    file.write(",".join([*(f"p{pixel}" for pixel in range(64)), "digit"]) + "\\n")
    for image, digit in zip(images.astype(int), digits):
        if digit != 9:
            file.write(",".join(map(str, [*image, digit])) + "\\n")
rows, labels, queries = offsets.KINDS["utm"]()
offsets.write_csv(folder / "utm.csv", rows, labels)
offsets.write_csv(folder / "near.csv", rows - rows.mean(axis=0), labels)
offsets.write_csv(folder / "queries.csv", queries, np.zeros(len(queries), int))
stages.write_all(folder)
stages.write_tones(folder / "tones")
for name, text in releases.RECIPES.items():
    parsed = config.parse(textwrap.dedent(text), base=folder)
    build_release(parsed.builds()[0], signer, out=folder / "releases" / name)
"""


if __name__ == "__main__":
    print(provide().folder)
