"""Which taught rows a release uses: a pure function of the release and the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from device_agent.shared.enrolment.enrolled import LocalRow, alike, difference, fingerprint, label_of
from device_agent.shared.enrolment.joined import contained, join
from device_agent.shared.protocol.constants import UNKNOWN
from device_agent.shared.protocol.input_info import Input, Stage, Window
from device_agent.shared.protocol.model_info import Enrol, KnnInfo, LabelSets, Reject
from device_agent.shared.protocol.record import replace
from device_agent.shared.protocol.table_info import Column, Table
from device_agent.shared.release.row_origins import Origins

INFO = KnnInfo(
    name="m", k=1, n_features=2, feature_names=("x", "y"), classes=("a", "b", "c"), metric="euclidean",
    weights="uniform", scale="none", n_train=9, batch=8, fingerprint="", minimum_runtime="2.14.0", versions={},
    reject=Reject(0.9, (3.0, 1.0, 2.0)), label_sets=(LabelSets(0.9, (0.1, None, 0.2), 1.0),), lattice=0.5,
    enrol=Enrol(10),
)  # fmt: skip


def row(name: str, label: Any = "a", digest: str = "now", **changes: Any) -> LocalRow:
    return replace(LocalRow(name, label, 0, (1.0, 2.0), digest, fingerprint(INFO)), **changes)


def names(info: KnnInfo, *rows: LocalRow, digest: str = "now", there: frozenset[str] = frozenset()) -> list[str]:
    return [each.id for each in join(info, rows, digest, there).rows]


def test_new_labels_stand_after_the_model_s_in_the_order_in_which_they_were_taught() -> None:
    found = join(INFO, [row("1", "z"), row("2", "b"), row("3", "d"), row("4", "z")], "now")
    assert found.info.classes == ("a", "b", "c", "z", "d")
    assert found.codes.tolist() == [3, 1, 4, 3]
    assert (found.info.n_train, found.info.lattice) == (13, None)


def test_a_new_label_has_the_median_threshold_and_is_in_every_label_set() -> None:
    found = join(INFO, [row("1", "z")], "now").info
    assert found.reject is not None
    assert found.reject.thresholds == (3.0, 1.0, 2.0, 2.0)
    assert found.label_sets is not None
    assert found.label_sets[0].thresholds == (0.1, None, 0.2, None)
    assert found.classes[UNKNOWN] == "z"


def test_a_release_absorbs_the_rows_whose_ids_it_contains() -> None:
    rows = [row("0a"), row("0b"), row("0c")]
    origins = Origins(text=b"17\n0b\nx0cx\n", ends=np.array([2, 5, 10]))
    assert contained(origins, rows) == {"0b"}
    assert contained(Origins(), rows) == frozenset()
    assert names(INFO, *rows, there=contained(origins, rows)) == ["0a", "0c"]


@pytest.mark.parametrize(
    ("allowed", "left"),
    [
        (None, []),
        (Enrol(10), ["old", "other", "new"]),
        (Enrol(10, new_labels=False), ["old", "other"]),
        (Enrol(10, drop=True), ["old", "new"]),
    ],
)
def test_a_release_leaves_out_what_it_does_not_allow(allowed: Enrol | None, left: list[str]) -> None:
    rows = [row("old"), row("other", digest="before"), row("new", "z"), row("wide", columns="0" * 16)]
    assert names(replace(INFO, enrol=allowed), *rows) == left


def test_a_taught_row_votes_on_when_a_release_begins_to_fill_missing_cells() -> None:
    filled = replace(INFO, table=Table((Column("x", "median", 0.5), Column("y"))))
    assert names(filled, row("plain")) == ["plain"]
    gaps = row("gap", row=(None, 2.0), columns=fingerprint(filled))
    assert names(filled, gaps) == ["gap"]
    assert names(INFO, gaps, row("plain")) == ["plain"], "this release has nothing to fill the cell with"
    text = replace(INFO, table=Table((Column("x", encoding="ordinal", categories=("1.0",)), Column("y"))))
    assert names(text, row("plain")) == []


def test_a_label_names_a_class_or_is_a_new_one_of_the_same_kind() -> None:
    assert [label_of(text, (1, 2)) for text in ("1", "3", "-3", "03", "x", "1.5")] == [1, 3, -3, None, None, None]
    assert [label_of(text, ("a", "1")) for text in ("a", "1", "2")] == ["a", "1", "2"]
    assert names(replace(INFO, classes=(1, 2)), row("text", "x"), row("number", 3)) == ["number"]


def test_a_row_taught_earlier_has_the_label_of_the_release_that_means_the_same() -> None:
    """Another release may spell it otherwise: in another normal form, as text or a number, without a fraction."""
    taught = [row("1", "1.0"), row("2", "\u00e9"), row("3", 5), row("4", "5"), row("5", "z")]
    found = join(replace(INFO, classes=("1", "a", "e\u0301", "5"), reject=None, label_sets=None), taught, "now")
    assert found.info.classes == ("1", "a", "e\u0301", "5", "z")
    assert found.codes.tolist() == [0, 2, 3, 3, 4]


def test_labels_that_look_alike_differ_in_their_code_points() -> None:
    latin, cyrillic = "rose", "r\u043ese"
    assert alike(cyrillic, ["lily", latin]) == latin
    assert difference(cyrillic, latin) == f"in letters that look alike ({cyrillic} has U+043E; {latin} has U+006F)"
    assert alike("\u039d\u0391\u0399", ["NAI"]) == "NAI", "capital Greek letters"
    assert difference("Rose", latin) == difference("\uff32ose", latin) == "in blanks or case"
    assert alike("\u0440\u043e\u0437\u0430", ["rose", "posa"]) is None, "a word of another script"
    assert alike("lilt", ["lily"]) is None


def test_taught_rows_stay_however_windows_follow_each_other_and_stages_are_run() -> None:
    stage = Stage("stage-1.tflite", "0" * 64)
    own = Input((stage,), window=Window(("ax",), 32, 16, "t", 0.1))
    fast = replace(stage, slides=True, reach=400, step=160)
    same = replace(own, bound=0.2, stages=(fast,), window=Window(("ax",), 32, 8, recording="walk"))
    others = [
        replace(own, pool=("mean",)),
        replace(own, stages=(replace(stage, hop=2),)),
        replace(own, window=Window(("ax",), 40, 16, "t", 0.1)),
    ]
    found = [fingerprint(replace(INFO, input=each)) for each in (own, same, *others)]
    assert found[0] == found[1]
    assert len({*found}) == 4
