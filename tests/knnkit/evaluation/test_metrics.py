"""Figures equal scikit-learn's on generated answers, with "unknown" counted apart."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, classification_report

from device_agent.shared.protocol.model_info import Evaluation
from knnkit.data.dataset import dataset
from knnkit.evaluation import measure, metrics
from knnkit.evaluation.splits import LEAVE_ONE_OUT, divide
from knnkit.model.reference.classifier import Reference
from knnkit.model.reference.enrolment import enrol
from knnkit.render import figures


def confusion_of(seed: int, *, reject: bool) -> tuple[np.ndarray, np.ndarray, list[list[int]], int]:
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 9))
    truth = random.integers(0, count, 200)
    answer = np.where(random.random(200) < 0.6, truth, random.integers(0, count, 200))
    if reject:
        answer[random.random(200) < 0.2] = -1
    table = np.zeros((count, count + 1), int)
    np.add.at(table, (truth, np.where(answer < 0, count, answer)), 1)
    return truth, answer, table.tolist(), count


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("reject", [False, True])
def test_figures_of_each_class_are_scikit_learns(seed: int, reject: bool) -> None:
    truth, answer, table, count = confusion_of(seed, reject=reject)
    found = metrics.of_confusion(table, [f"c{n}" for n in range(count)])
    assert found is not None
    names = np.array([*(f"c{n}" for n in range(count)), "unknown"])
    labels = names[:count].tolist()
    report = classification_report(names[truth], names[answer], labels=labels, output_dict=True, zero_division=0)
    for each in found.classes:
        line = report[each.label]
        assert each.precision == pytest.approx(line["precision"], abs=1e-12)
        assert (each.recall or 0.0) == pytest.approx(line["recall"], abs=1e-12)
        assert each.support == line["support"]
    assert found.accuracy == pytest.approx(np.mean(truth == answer))
    assert found.balanced_accuracy == pytest.approx(report["macro avg"]["recall"])
    if not reject:
        assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, answer))
    assert found.coverage == np.mean(answer >= 0)
    assert found.answered_accuracy == pytest.approx(np.mean((truth == answer)[answer >= 0]))
    recalls = [each.recall for each in found.classes if each.recall is not None]
    assert recalls == sorted(recalls)


@pytest.mark.parametrize("rows", [1, 7, 300])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9433, 1.0])
def test_the_interval_is_wilsons(rows: int, share: float) -> None:
    """Its ends p solve (x - p)^2 = z^2 p (1 - p) / n."""
    right = round(share * rows)
    found = right / rows
    for end in metrics.wilson(right, rows):
        gap = 1.959963984540054**2 * end * (1 - end) / rows
        assert (found - end) ** 2 == pytest.approx(gap, abs=1e-12)


@pytest.mark.parametrize("rows", [1, 10, 231, 300])
def test_the_interval_of_no_mistake_ends_at_100_percent(rows: int) -> None:
    assert metrics.wilson(rows, rows)[1] == 1
    assert metrics.wilson(0, rows)[0] == 0


def test_the_worst_class_is_shown_first_and_unknown_apart() -> None:
    evaluation = Evaluation("stratified", 30, (10, 10, 10), (9, 1, 10), (9, 1, 12))
    found = metrics.of_evaluation(evaluation, ("walk", "fall", "sit"))
    assert found is not None
    lines = figures.lines(found, "stratified")
    assert lines[0].startswith("accuracy 66.67 % on 30 held-out rows (stratified), 95 % interval 48.78 % to 80.77 %")
    assert lines[1] == "answered 22 of 30 rows (73.33 %), 90.91 % of them right"
    assert lines[2] == "class fall: recall 10.00 % (1 of 10 rows), precision 100.00 %"
    assert figures.lines(found, "stratified", most=2)[-1] == "the other class: recall 100.00 %"
    assert figures.lines(found, "stratified", most=1)[-1] == "the other 2 classes: recall 90.00 % or more"
    gaps = metrics.of_evaluation(Evaluation("group", 9, (5, 4, 0), (5, 3, 0), (6, 3, 0)), ("a", "b", "c"))
    assert gaps is not None
    assert figures.lines(gaps, most=1)[-1] == "the other 2 classes: recall 100.00 %, 1 of them not measured"
    never = metrics.of_evaluation(Evaluation("stratified", 9, (9, 0, 0), (9, 0, 0), (8, 0, 1)), ("a", "b", "c"))
    assert never is not None
    assert figures.lines(never)[-2:] == [
        "class b: not measured (no held-out row)",
        "class c: not measured (no held-out row), precision 0.00 %",
    ]
    silent = metrics.of_evaluation(Evaluation("stratified", 9, (8, 1), (8, 0), (9, 0)), ("a", "b"))
    assert silent is not None
    assert figures.lines(silent)[-2] == "class b: recall 0.00 % (0 of 1 row)", "no answer, so no precision"
    assert metrics.of_evaluation(None, ("a",)) is None
    assert metrics.of_confusion((), ()) is None


def test_every_held_out_row_is_measured() -> None:
    random = np.random.default_rng(1)
    rows, labels = random.normal(size=(4000, 2)), random.integers(0, 3, 4000)
    found = divide(dataset(rows, labels), 0.5, 0)
    held = enrol(found.training, [], "euclidean")
    reference = Reference(held.space, held.enrolled, held.codes, 3, 3, "uniform")
    measured = measure.measure(reference, held.classes, found.held_out, found.how)
    assert measured is not None
    assert found.held_out is not None
    assert measured.rows == 2000
    assert sum(measured.right) == int((reference.answer(found.held_out.rows).label == found.held_out.labels).sum())


def test_a_gallery_is_measured_without_each_row_itself() -> None:
    rows = dataset([[0.0], [0.1], [5.0], [5.1], [9.0]], ["a", "a", "b", "b", "c"])
    held = enrol(rows, [], "euclidean")
    reference = Reference(held.space, held.enrolled, held.codes, 3, 1, "uniform")
    found = measure.measure(reference, held.classes, None, LEAVE_ONE_OUT)
    assert found is not None
    assert (found.rows, found.support, found.right) == (4, (2, 2, 0), (2, 2, 0))


@pytest.mark.parametrize(
    ("share", "shown"),
    [(None, "–"), (1.0, "100.00 %"), (0.999999, "99.99 %"), (0.9433333, "94.33 %"), (1e-9, "0.01 %"), (0.0, "0.00 %")],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share: float | None, shown: str) -> None:
    assert metrics.percent(share) == shown
