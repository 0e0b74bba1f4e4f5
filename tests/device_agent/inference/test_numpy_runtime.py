"""NumPy answers as TFLite does, and takes its place only where none is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from support.releases import Releases

from device_agent.inference.interpreter import Loader
from device_agent.inference.tflite_knn import TfliteKNN
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants, versions
from device_agent.shared.protocol.errors import DeviceUnfit, ModelUnusable

TFLITE = [name for name in constants.RUNTIMES if name != constants.NUMPY]


class Missing:
    """Finds none of some packages."""

    def __init__(self, *packages: str) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """As if they were not installed."""
    _forget(monkeypatch, *packages)
    monkeypatch.setattr(sys, "meta_path", [Missing(*packages), *sys.meta_path])


def _forget(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] in packages]:
        monkeypatch.delitem(sys.modules, module)


@pytest.mark.parametrize("name", ["iris", "digits", "blobs", "spectra"])
def test_numpy_answers_as_tflite_does(name: str, releases: Releases) -> None:
    path = releases[name] / constants.MODEL_FILE
    golden = Golden.from_bytes((releases[name] / constants.GOLDEN_FILE).read_bytes())
    tflite, alone = TfliteKNN(path), TfliteKNN(path, runtime=constants.NUMPY)
    rows = golden.rows[:400]
    expected, found = tflite.classify(rows), alone.classify(rows)
    assert np.array_equal(found.label, expected.label)
    assert np.array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-5, atol=1e-6)
    one_by_one = [alone.labels(row[np.newaxis])[0] for row in rows[:50]]
    assert one_by_one == expected.label[:50].tolist()
    assert (alone.runtime.name, alone.runtime.delegate, alone.settled) == ("numpy", None, 0)


def test_rows_that_numpy_searches_need_no_runtime_to_load_the_file(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = releases["digits"] / constants.MODEL_FILE
    rows = Golden.from_bytes((releases["digits"] / constants.GOLDEN_FILE).read_bytes()).rows[:70]
    expected = TfliteKNN(path).classify(rows)
    monkeypatch.delattr(Loader, "open")
    found = TfliteKNN(path, search=constants.NUMPY).classify(rows)
    assert np.array_equal(found.indices, expected.indices)


def test_auto_takes_numpy_only_without_a_tflite_runtime(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(releases["iris"] / constants.MODEL_FILE)
    assert Loader.find(path, "auto", 1).name in TFLITE
    _hide(monkeypatch, *TFLITE)
    assert TfliteKNN(path).runtime.name == constants.NUMPY


def test_a_damaged_runtime_is_named_and_not_replaced_by_numpy(
    releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged, missing = TFLITE
    (tmp_path / damaged).mkdir()
    (tmp_path / damaged / "__init__.py").write_text("")
    (tmp_path / damaged / "interpreter.py").write_text("raise ImportError('libtflite.so: invalid ELF header')\n")
    _forget(monkeypatch, damaged)
    _hide(monkeypatch, missing)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeviceUnfit, match=f"{damaged} cannot be loaded: libtflite.so: invalid ELF header"):
        TfliteKNN(releases["iris"] / constants.MODEL_FILE)


def test_damaged_tables_are_found_when_the_model_is_opened(releases: Releases, tmp_path: Path) -> None:
    data = (releases["iris"] / constants.MODEL_FILE).read_bytes()
    path = tmp_path / constants.MODEL_FILE
    path.write_bytes(data.replace(b"block_offsets", b"block_offsetz"))
    with pytest.raises(ModelUnusable):
        TfliteKNN(path, runtime=constants.NUMPY)


def test_numpy_is_new_enough_for_every_model() -> None:
    assert (versions.runtime("numpy 1.24.2") or ()) > (versions.runtime("9999.0") or ())
