"""The runtime that a model needs is read off its operations, by knnkit's own table."""

from __future__ import annotations

import copy
from typing import Any

import flatbuffers
import numpy as np
import pytest
from support.models import build_model
from support.wild import problem

from knnkit.data.dataset import dataset
from knnkit.errors import BuildError
from knnkit.model.build import OLDEST_RUNTIME
from knnkit.model.reference.spec import KnnSpec
from knnkit.model.tflite import flatbuffer, op_versions


@pytest.fixture(scope="module")
def trees() -> list[Any]:
    """Models that have all of the graph's parts between them: small ones, one with a threshold, one in blocks."""
    rng = np.random.default_rng(0)
    blocks = build_model(KnnSpec("blocks", 3), dataset(rng.normal(size=(9001, 129)), rng.integers(0, 3, 9001)))
    trees = build_model(
        KnnSpec("trees", 5, "cosine", "distance", "standard", 0.9),
        dataset(rng.normal(size=(300, 5)), rng.choice(["ash", "elm"], 300)),
    )
    models = [blocks, trees, *(problem(seed).build() for seed in (16, 2, 12))]
    return [flatbuffer.unpack(model.data) for model in models]


@pytest.mark.filterwarnings("ignore")  # scikit-learn's, about the data
def test_every_model_needs_what_the_converter_says_too(trees: list[Any]) -> None:
    told = [_converters_word(tree) for tree in trees]
    assert [op_versions.minimum_runtime(tree, OLDEST_RUNTIME) for tree in trees] == told
    assert len(set(told)) > 1


def test_an_operation_that_the_oldest_runtime_lacks_is_named(trees: list[Any]) -> None:
    with pytest.raises(BuildError, match=r"needs TFLite runtime \S+ for .*TOPK_V2 version 1.*; boards have 1\.6\.0"):
        op_versions.minimum_runtime(trees[0], "1.6.0")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"builtinCode": 130, "deprecatedBuiltinCode": 127}, "BROADCAST_TO version 1"),
        ({"version": 99}, "version 99"),
        ({"builtinCode": 9999}, "number 9999 version 1"),
        ({"builtinCode": 32, "deprecatedBuiltinCode": 32, "customCode": b"FlexEinsum"}, "FlexEinsum"),
    ],
)
def test_an_operation_that_the_table_does_not_know_is_refused_by_name(
    change: dict[str, Any], said: str, trees: list[Any]
) -> None:
    tree = copy.copy(trees[0])
    tree.operatorCodes = [copy.copy(code) for code in tree.operatorCodes]
    for name, value in change.items():
        setattr(tree.operatorCodes[0], name, value)
    with pytest.raises(BuildError, match=f"boards may not have: .*{said}") as refused:
        op_versions.minimum_runtime(tree, OLDEST_RUNTIME)
    assert "tensorflow==" in (refused.value.hint or "")


def _converters_word(tree: Any) -> str:
    entry = next(each for each in tree.metadata if each.name == b"min_runtime_version")
    return bytes(tree.buffers[entry.buffer].data).rstrip(b"\0").decode()


def test_a_model_needs_the_runtime_of_its_stages_too(trees: list[Any]) -> None:
    told = [op_versions.minimum_runtime(tree, OLDEST_RUNTIME) for tree in trees]
    for tree, version in zip(trees, told):
        assert op_versions.with_stages("1.5.0", [_packed(tree)]) == version
        assert op_versions.with_stages("2.9.0", [_packed(tree)]) == "2.9.0"
    tree = copy.copy(trees[0])
    tree.metadata, tree.operatorCodes = None, [copy.copy(code) for code in tree.operatorCodes]
    assert op_versions.with_stages("1.5.0", [_packed(tree)]) == told[0]  # by the table alone
    tree.operatorCodes[0].version = 99
    assert op_versions.with_stages("1.5.0", [_packed(tree)]) == "2.15.0"
    assert op_versions.with_stages("2.16.0", [_packed(tree)]) == "2.16.0"


def _packed(tree: Any) -> bytes:
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(tree.Pack(builder), flatbuffer.IDENTIFIER)
    return bytes(builder.Output())
