"""A device's answers to rows of ours are read as a stranger's: what makes no sense is an error, never a crash."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import numpy as np
import pytest

from knnkit.errors import DeviceFailed
from knnkit.fleet.device.classify_client import Answerer
from knnkit.fleet.device.probe import Facts
from knnkit.transport.base import Completed

FACTS = Facts(
    home="/home/pi",
    root="/home/pi/.knnkit",
    machine="aarch64",
    system="Linux",
    python=(3, 11, 2),
    python_path="/usr/bin/python3",
    disk_free_bytes=10**9,
    writable=True,
    venv=None,
)
ROWS = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)


class Device:
    """Answers what it is told to, and keeps what it was sent."""

    name = "pi-1"

    def __init__(self, stdout: bytes, exit_code: int = 0) -> None:
        self.stdout, self.exit_code, self.sent = stdout, exit_code, b""

    def run(self, argv: Sequence[str], *, timeout: float, input: bytes = b"", max_output: int = 0) -> Completed:
        self.argv, self.sent = tuple(argv), input
        return Completed(self.argv, self.exit_code, self.stdout, b"disk on fire", 0.1)


def lines(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def test_rows_go_out_as_they_are_and_answers_come_back_in_order() -> None:
    device = Device(lines({"label": "b"}, {"label": "unknown"}))
    assert Answerer(device, FACTS).labels(ROWS, ("a", "b")).tolist() == [1, -1]  # type: ignore[arg-type]
    assert np.load(io.BytesIO(device.sent), allow_pickle=False).tolist() == ROWS.tolist()
    assert device.argv[:4] == ("/home/pi/.knnkit/venv/bin/python", "-I", "-m", "device_agent")
    assert device.argv[4:6] == ("--root", "/home/pi/.knnkit")


def test_neighbours_are_read_with_their_labels() -> None:
    record = {"label": 4, "neighbors": [{"index": 7, "distance": 0.1}, {"index": 2, "distance": 0.2}]}
    nearest, labels = Answerer(Device(lines(record, record)), FACTS).neighbours(ROWS)  # type: ignore[arg-type]
    assert nearest.tolist() == [[7, 2], [7, 2]]
    assert labels.tolist() == [4, 4]


NONSENSE = {
    "not JSON": b"not json\n{}\n",
    "not objects": lines([], []),
    "no label": lines({}, {}),
    "a label that the model has not": lines({"label": "c"}, {"label": "a"}),
    "a label that is none": lines({"label": []}, {"label": "a"}),
    "nested without end": b"[" * 100_000 + b"\n{}\n",
    "not text": b"\xff\n\xff\n",
}


@pytest.mark.parametrize("stdout", NONSENSE.values(), ids=list(NONSENSE))
def test_answers_that_make_no_sense_are_said_so(stdout: bytes) -> None:
    with pytest.raises(DeviceFailed, match="pi-1: the answers of `classify` are malformed"):
        Answerer(Device(stdout), FACTS).labels(ROWS, ("a", "b"))  # type: ignore[arg-type]


def test_a_lost_row_is_said_so() -> None:
    with pytest.raises(DeviceFailed, match="2 rows were sent, but 1 answers came back"):
        Answerer(Device(lines({"label": "a"})), FACTS).labels(ROWS, ("a", "b"))  # type: ignore[arg-type]


def test_a_device_that_cannot_answer_says_why() -> None:
    with pytest.raises(DeviceFailed, match="classify: disk on fire"):
        Answerer(Device(b"", 1), FACTS).labels(ROWS, ("a", "b"))  # type: ignore[arg-type]
