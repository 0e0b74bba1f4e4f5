"""A device for tests: TfliteKNN over tflite_runtime in a process of its own, since TensorFlow is in this one."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class DeviceAnswers:
    """The answers of TfliteKNN, and the number of rows that it computed again in float64."""

    label: np.ndarray
    probabilities: np.ndarray
    indices: np.ndarray
    distances: np.ndarray
    predicted: np.ndarray
    settled: int
    runtime: Any


class DeviceProcess:
    """Runs models as a board would; use it in a `with`."""

    def __enter__(self) -> DeviceProcess:
        self._process = subprocess.Popen(
            [sys.executable, __file__], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def classify(
        self,
        model: Path,
        rows: np.ndarray,
        *,
        one_by_one: bool = False,
        taught: tuple[np.ndarray, list[Any]] | None = None,
        **how: Any,
    ) -> DeviceAnswers:
        """Answers `rows`, in batches or one by one; `how` are further arguments of TfliteKNN.

        `taught` are rows taught on the device, and their labels, or tuples of values.
        """
        _send(self._process.stdin, (str(model), rows, one_by_one, how, taught))
        reply = _receive(self._process.stdout)
        if reply is None:
            raise RuntimeError(f"the device's process ended: {self._process.stderr.read()[-500:]!r}")
        if isinstance(reply, str):
            raise RuntimeError(reply)
        return reply


def _send(stream: Any, value: Any) -> None:
    data = pickle.dumps(value)
    stream.write(struct.pack("<q", len(data)) + data)
    stream.flush()


def _receive(stream: Any) -> Any:
    head = stream.read(8)
    return pickle.loads(stream.read(struct.unpack("<q", head)[0])) if head else None


def _with_taught(signed: Any, rows: np.ndarray, labels: list[Any]) -> Any:
    from device_agent.enrolment.joined import JoinedKNN
    from device_agent.shared.enrolment import enrolled, joined
    from device_agent.shared.protocol.model_info import Enrol
    from device_agent.shared.protocol.record import replace

    info = replace(signed.info, table=None, enrol=Enrol(len(rows)))  # `rows` are features, not cells of a table
    columns = enrolled.fingerprint(info)
    cells = [tuple(float(str(value)) for value in row) for row in rows]
    means = [("", value) if isinstance(value, tuple) else (value, ()) for value in labels]
    made = [enrolled.LocalRow(f"{i}", means[i][0], 0, row, "", columns, "", means[i][1]) for i, row in enumerate(cells)]
    return JoinedKNN(signed, joined.join(info, made, ""))


def _serve() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from device_agent.inference.tflite_knn import Answers, TfliteKNN
    from device_agent.shared.protocol.errors import AgentError
    from support.device_process import DeviceAnswers as Reply

    while (request := _receive(sys.stdin.buffer)) is not None:
        path, rows, one_by_one, how, taught = request
        try:
            signed = TfliteKNN(path, **how)
            model = signed if taught is None else _with_taught(signed, *taught)
            parts = (
                [model.classify(rows[i : i + 1]) for i in range(len(rows))] if one_by_one else [model.classify(rows)]
            )
            names = ("label", "probabilities", "indices", "distances")
            joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
            settled = signed.settled
            predicted = signed.predict(rows) if taught is None else joined["label"]
            if taught is not None and signed.info.targets is not None:
                predicted = model.values_of(Answers(*(joined[name] for name in names)))
            _send(sys.stdout.buffer, Reply(**joined, predicted=predicted, settled=settled, runtime=signed.runtime))
        except AgentError as error:
            _send(sys.stdout.buffer, f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    _serve()
