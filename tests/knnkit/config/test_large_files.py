"""A large deploy.yaml costs a bounded time: too much of it is refused before it is read, or as soon as it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from knnkit.config import load, yaml_reader
from knnkit.errors import ConfigError


@pytest.mark.parametrize("unit", ["- a\n", "- [[], {}]\n", "# comment\n", "- 'text'\n"])
def test_more_than_a_mebibyte_is_refused_unread(unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deploy.yaml"
    path.write_text(unit * (4 * 1024 * 1024 // len(unit)))
    monkeypatch.delattr(yaml_reader.yaml, "compose")  # nothing parses it
    with pytest.raises(ConfigError, match="more than 1,048,576 characters"):
        load.load(path)


@pytest.mark.parametrize("text", ["a: [" + "[]," * 50 + "]", "- a\n" * 50, "a: &x [1]\nb: [" + "*x, " * 50 + "]"])
def test_too_many_values_stop_the_reader_where_they_begin(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_reader, "MAX_NODES", 20)
    with pytest.raises(ConfigError, match="more than 20 values"):
        yaml_reader.read(text, "deploy.yaml")


def test_ten_thousand_devices_are_read() -> None:
    line = "    - {host: board-12345.example, tags: [canary]}\n"
    found = yaml_reader.read("fleet:\n  targets:\n" + line * 10_000, "deploy.yaml").data
    assert len(found["fleet"]["targets"]) == 10_000
