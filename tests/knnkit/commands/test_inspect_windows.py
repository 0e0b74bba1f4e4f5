"""`knnkit inspect` says how windows are cut, and what makes a row of each."""

from __future__ import annotations

import re

import pytest
from support.releases import Releases

from device_agent.shared.protocol.input_info import Input, Window
from knnkit import cli
from knnkit.commands.inspect import _input_lines


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("motion", ["input windows of 32 samples, hop 16", "training rows .* x 96 features"]),
        (
            "motion-long",
            [
                "input windows of 40 samples, hop 40",
                "stage stage-1.tflite: float32 .*",
                "bound a device's rows may be 0.1 of .*",
            ],
        ),
    ],
)
def test_windows_are_described(
    name: str, lines: list[str], releases: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["inspect", str(releases[name])]) == 0
    out = re.sub(" +", " ", capsys.readouterr().out)
    gap = "gap no window spans a step of t above 0.1 or below 0"
    for line in [*lines, "columns ax, ay, az", gap]:
        assert re.search(f"^{line}$", out, re.MULTILINE), f"{line} is not in:\n{out}"


def test_a_recording_and_a_window_without_times_are_described() -> None:
    lines = dict(_input_lines(Input(window=Window(("a", "b"), 1200, 1, recording="person"))))
    assert lines == {
        "input": "windows of 1,200 samples, hop 1",
        "columns": "a, b",
        "recording": "no window spans two values of person",
    }
