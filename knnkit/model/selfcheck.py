"""Checks a finished model against its golden set.

Runs the file in TensorFlow's interpreter on the build machine, before anything is signed. A device decides uncertain
rows in float64; this check takes the reference's answers for them.
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.golden import class_gates, error_gates
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.golden.judge import Verdict, judge
from device_agent.shared.protocol import constants, model_info
from knnkit.data import columns
from knnkit.errors import BuildError
from knnkit.model.built import BuiltModel
from knnkit.model.reference.classifier import Reference
from knnkit.model.tflite.load_tensorflow import give_back, open_interpreter

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SEARCH_NAMES = {constants.FULL: "", constants.QUANTIZED: " in the int8 search", constants.CELLS: " in the cell search"}

_TOO_HIGH = "loosen this gate under gates: in deploy.yaml, or choose another k, metric or scale"
_NOT_MEASURED = (
    "hold out rows that this gate can measure (more: test: 0.3), or leave it out under gates: in deploy.yaml"
)
_AT_FAULT = "knnkit or TensorFlow is at fault, not your data: build with the versions in pyproject.toml; report it"


def self_check(model: BuiltModel, golden: Golden, gates: model_info.Gates) -> Verdict:
    """Checks every search in the built file against the golden set; returns the verdict on the search `full`.

    Raises:
        BuildError: a golden row has another answer than the reference's, or the model misses a gate.
    """
    give_back()
    with _written(model) as path:
        verdict = _check(model, path, golden, gates, constants.FULL)
        if found := _missed_on_all_rows(model.info, gates):
            said = f"the model misses its own gates on all held-out rows: {'; '.join(found)}"
            raise BuildError(said, hint=_mend(model.info, found), key=_gate(found))
        for search in (constants.QUANTIZED, constants.CELLS):  # each device chooses its search
            if model.info.batch_rows(search) is not None:
                _check(model, path, golden, gates, search)
    return verdict


@contextlib.contextmanager
def _written(model: BuiltModel) -> Iterator[str]:
    """Yields the path of a temporary file of the model, which the interpreter maps, so that memory holds no copy."""
    try:
        with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
            file.writelines(model.parts())
            file.flush()
            yield file.name
    except OSError as error:
        if error.filename is None and error.errno in _FULL:  # a write names no file, and this is not the release's disk
            raise type(error)(error.errno, error.strerror, tempfile.gettempdir()) from None
        raise


def _mend(info: model_info.KnnInfo, failures: Sequence[str]) -> str:
    mend = _NOT_MEASURED if all("but no " in failure for failure in failures) else _TOO_HIGH
    doubt = columns.doubt(info.classes, info.n_train) if info.targets is None else ""
    return f"{doubt} (Otherwise: {mend})" if doubt else mend


def _gate(failures: Sequence[str]) -> str:
    """Returns the key of deploy.yaml for the first of `failures`, messages that begin with the name of a gate."""
    return f"gates/{failures[0].split()[0].rstrip(':')}"


def _missed_on_all_rows(info: model_info.KnnInfo, gates: model_info.Gates) -> list[str]:
    """Returns a message for each gate that the reference misses on all held-out rows; [] if it was not measured."""
    evaluation, targets = info.evaluation, info.targets
    if targets is not None and targets.how:
        columns = error_gates.missed_columns(gates, error_gates.scores_of(targets), targets.names)
        return [*error_gates.missed(gates, targets.errors, targets.names), *columns]
    if evaluation is None:
        return []
    found = list(class_gates.failures(gates, [*map(str, info.classes)], evaluation.support, evaluation.right))
    accuracy = sum(evaluation.right) / evaluation.rows
    if gates.accuracy is not None and accuracy < gates.accuracy:
        found.append(f"accuracy: {accuracy:.6g} is below the gate of {gates.accuracy:g}")
    return found


def _check(model: BuiltModel, path: str, golden: Golden, gates: model_info.Gates, search: str) -> Verdict:
    runner = _runner(path, constants.SIGNATURE_BATCH, search)
    answers = _run(model, runner, golden.rows, model.info.batch_rows(search) or 1)
    verdict = judge(golden, answers, model.info, gates, values=model.reference.settled(answers, golden.rows))
    if verdict.failures:
        raise BuildError(
            f"the model misses its own gates{_SEARCH_NAMES[search]}: {'; '.join(verdict.failures)}",
            hint=_AT_FAULT if verdict.different else _mend(model.info, verdict.failures),
            key="" if verdict.different else _gate(verdict.failures),
        )
    return verdict


def milliseconds(model: BuiltModel, raw: NDArray[Any]) -> float:
    """Returns the milliseconds to answer `raw`, one row, in TensorFlow's interpreter here: the median of 200 times."""
    row = model.reference.space.narrow(raw)
    times = []
    with _written(model) as path:
        runner = _runner(path, constants.SIGNATURE_ONE, constants.FULL)
        for _ in range(200):
            begun = time.perf_counter()
            runner(**{constants.INPUT_ROWS: row})
            times.append(time.perf_counter() - begun)
    return float(np.median(times)) * 1000.0


def _runner(path: str, name: str, search: str) -> Any:
    return open_interpreter(model_path=path).get_signature_runner(constants.signature(name, search))


def _run(model: BuiltModel, runner: Any, raw: NDArray[Any], batch: int) -> SimpleNamespace:
    rows, parts = model.reference.space.narrow(raw), []
    for start in range(0, len(rows), batch):
        chunk = rows[start : start + batch]
        full = np.resize(chunk, (batch, rows.shape[1]))
        found = runner(**{constants.INPUT_ROWS: full})
        parts.append({name: value[: len(chunk)] for name, value in found.items()})
    joined: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    decide(joined, model.reference, raw)
    return SimpleNamespace(**joined)


def decide(found: Mapping[str, NDArray[Any]], reference: Reference, raw: NDArray[Any]) -> None:
    """Replaces uncertain answers `found` (output name -> array) to (n, d) rows `raw` by those in float64, in place."""
    doubtful = ~found[constants.OUTPUT_CERTAIN]
    if doubtful.any():
        exact, k = reference.answer(raw[doubtful]), reference.k
        settled = (exact.label, exact.probabilities, exact.indices[:, :k], exact.distances[:, :k])
        for name, values in zip(constants.ANSWERS, settled):
            found[name][doubtful] = values
