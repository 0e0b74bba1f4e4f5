"""Before and after, as people read it: a fall stands out, and its rows are named."""

from __future__ import annotations

from dataclasses import replace

from support import pages

from device_agent.shared.protocol.reports import ClassChange, Compared, Flip
from knnkit.fleet.report import DeviceReport, FleetReport, Outcome
from knnkit.release.evaluation_rows import EvaluationRows
from knnkit.render import changes, fleet_report, html

FALLS = Compared(
    "e1" * 32,
    "fruit",
    "1.3.0",
    True,
    (ClassChange("apple", 10, 9, 9), ClassChange("banana", 4, 4, 1), ClassChange("cherry", 0, 0, 0)),
    ("date",),
    (Flip("banana", "banana", "apple", 3, (1, 5, 7)), Flip("", "apple", "cherry", 1, (9,))),
)
VOTERS = tuple(f"apple {number}" for number in range(10))
ROWS = EvaluationRows(("apple", "banana") * 5, ("apple", "apple") * 5, voters=VOTERS)


def run(compared: Compared | None, **more: object) -> FleetReport:
    proof = pages.certificate(classes=pages.CLASSES, compared=compared, **more)
    devices = (DeviceReport(name, f"pi@{name}", Outcome.COMMITTED, certificate=proof) for name in ("roof", "shed"))
    return FleetReport("deploy", 0.0, 1.0, tuple(devices), releases=(pages.RELEASE,))


def test_a_fall_is_said_first_overall_then_by_class_then_by_row() -> None:
    said = [line for line, _ in changes.evaluation_lines(run(FALLS), lambda _: ROWS) if " -> " in line or "now" in line]
    assert said == [
        "2 devices: accuracy 92.86 % -> 71.43 % on 14 golden rows, balanced accuracy 95.00 % -> 57.50 %, "
        "worst class apple 90.00 % -> banana 25.00 %, against fruit 1.3.0",
        "2 devices: class banana: recall 100.00 % -> 25.00 % (4 -> 1 of 4 rows)",
        "2 devices: class banana, now answered apple: evaluation rows 1, 5, 7",
    ]
    tones = dict(changes.evaluation_lines(run(FALLS)))
    assert tones["2 devices: the class 'date' of fruit 1.3.0 no longer exists"] == "warn"


def test_the_accuracy_of_golden_rows_drawn_by_class_is_that_of_the_certificate() -> None:
    cells = ((97, 0, 0, 3), (6, 24, 0, 0), (1, 0, 29, 0))
    report = run(FALLS, confusion=cells, accuracy=0.99)
    said = [line for line, _ in changes.evaluation_lines(report)]
    rows = "160 golden rows, each class by its share of all held-out rows"
    assert said[0] == f"2 devices: accuracy 99.00 % on {rows}; balanced accuracy 91.22 %"
    assert said[1] == "2 devices: answered 157 of 160 rows", "shares of these rows are not those of all"
    assert said[2] == "2 devices: class banana: recall 80.00 % (24 of 30 rows)"
    assert fleet_report._accuracy(report.devices[0].certificate) == "99.00 %"  # type: ignore[arg-type]


def test_a_missed_gate_names_its_rows_where_nothing_ran_before() -> None:
    report = run(None, failures=("recall of 'banana': 0 (0 of 5 rows) is below the gate of 0.8",))
    said = [line for line, _ in changes.evaluation_lines(report, lambda _: ROWS)]
    assert said[-1] == "2 devices: class banana, answered apple: evaluation rows 1, 3, 5, 7, 9"


def test_nothing_is_said_where_nothing_was_compared() -> None:
    report = run(None)
    assert changes.sections(report) == ()
    assert not [line for line, _ in changes.evaluation_lines(report, lambda _: ROWS) if " -> " in line]
    other = run(replace(FALLS, fits=False, classes=(), gone=(), flips=()))
    assert changes.change_lines(other.devices[0].certificate.compared) == [  # type: ignore[union-attr]
        ("fruit 1.3.0 takes other columns, so the new release cannot be compared with it", "warn")
    ]


def test_a_page_holds_the_tables_and_hostile_numbers_break_nothing() -> None:
    page = html.render(fleet_report.page_of(run(FALLS), rows=lambda _: ROWS))
    for text in (
        "Before and after: roof, shed",
        "Recall by class",
        "Labels that change",
        "evaluation rows 1, 5, 7",
        "apple 7",
    ):
        assert text in page
    wild = ClassChange(pages.HOSTILE, -3, 10**30, -1), ClassChange("b", 10**12, 0, 10**20)
    flips = (Flip(pages.HOSTILE, pages.HOSTILE, "b", -1, (-5, 10**9)),)
    page = html.render(fleet_report.page_of(run(replace(FALLS, classes=wild, flips=flips)), rows=lambda _: ROWS))
    assert "<script" not in page
    assert ROWS.listed((-5, 10**9, 3), 7) == "evaluation rows 3 and 6 more"
    assert ROWS.listed((-5, 10**9), 7) == "7 rows", "no row has these numbers"


def test_of_many_classes_and_rows_the_first_are_shown() -> None:
    classes = tuple(ClassChange(f"c{number}", 100, 100, number) for number in range(60))
    flips = tuple(Flip(f"c{n}", f"c{n}", "x", 100 - n, tuple(range(20))) for n in range(50))
    section, *_ = changes.sections(run(replace(FALLS, classes=classes, flips=flips)), lambda _: ROWS)
    (heading, table), *_ = section.tables
    assert heading == "Recall by class (the 25 classes that fall most, of 60)"
    assert len(table.rows) == 25
    assert "evaluation rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 90 more" in section.lines[1][0]
