"""Values of deploy.yaml change, and nothing else does."""

from __future__ import annotations

import pytest

from knnkit.config import edit, yaml_reader
from knnkit.errors import ConfigError

VALUES = {"k": 7, "scale": "robust"}
HEAD = "# head\n"
TAIL = "\n# below\nrelease: {dir: dist}   # where\n"
BODIES = [
    "model: {name: a, data: {sklearn: iris}, k: 3}",
    "model: {name: a, data: {sklearn: iris}}  # short",
    "model:\n  name: a   # the name\n  data: {sklearn: iris}\n  k: 3   # three",
    "model:\n  data:\n    sklearn: iris\n  name: a\n\n  # about k\n  k: 3\n  scale: none  # no\n  test: 0.2",
    "model:\n    k: '3'\n    name: \"a\"\n    data: {sklearn: iris}",
    "model:\n  name: a\n  k:   # empty\n  data: {sklearn: iris}",
    "models:\n  - name: b\n    data: {sklearn: iris}\n  - name: a\n    data: {sklearn: iris}\n    k: 3",
    "models: [{name: b, data: {sklearn: iris}}, {name: a, data: {sklearn: iris}}]",
    "model:\n  name: a\n  seed: &seed 4\n  k: 3\n  data: {sklearn: iris}",
    "model:\n  name: a\n  k: &k 3   # three\n  data: {sklearn: iris}",
    "model:\n  name: >-\n    a\n  test: 0.3\n  data: {sklearn: iris}",
]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("tail", [TAIL, "", "\n"])
@pytest.mark.parametrize("body", BODIES)
def test_only_the_values_change(body: str, tail: str, newline: str, mark: str) -> None:
    text = mark + (HEAD + body + tail).replace("\n", newline)
    place = ("models", 1) if "models" in body else ("model",)
    changed = edit.with_values(text, place, VALUES, "f")
    data, before = yaml_reader.read(changed, "f").data, yaml_reader.read(text, "f").data
    here = data["models"][1] if "models" in body else data["model"]
    there = before["models"][1] if "models" in body else before["model"]
    assert here == there | VALUES
    assert data | {"models": None, "model": None} == before | {"models": None, "model": None}
    comments = [part.split("#")[1] for part in text.splitlines() if "#" in part]
    assert [part.split("#")[1] for part in changed.splitlines() if "#" in part] == comments
    lost = [line for line in text.splitlines() if line not in changed.splitlines()]
    assert all("k:" in line or "scale:" in line or "{name: a" in line for line in lost)
    assert ("\r\n" in changed) == ("\r\n" in text)
    assert (changed.startswith(mark), changed.count("&")) == (True, text.count("&"))
    assert edit.with_values(changed, place, VALUES, "f") == changed


@pytest.mark.parametrize(
    "text",
    [
        "x: &k 3\nmodel:\n  name: a\n  k: *k\n",
        "base: &base {name: a, k: 3}\nmodel: *base\n",
        "model:\n  data:\n    sklearn: iris\n",
    ],
)
def test_what_cannot_be_changed_alone_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="f:") as raised:
        edit.with_values(text, ("model",), VALUES, "f")
    assert raised.value.hint == "write them by hand: k: 7, scale: robust"
