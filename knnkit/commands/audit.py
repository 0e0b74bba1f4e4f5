"""`knnkit audit`: doubtful labels or targets, near duplicates, useless rows.

Rows are numbered from 0, as in the file of deploy.yaml. Builds nothing, changes nothing.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from typing import Any

from device_agent.shared.protocol import json_codec
from device_agent.shared.safe_files import whole_file
from knnkit.commands import _config, _output
from knnkit.config.parse import Build
from knnkit.data.bad_cells import quoted
from knnkit.data.collected import Columns
from knnkit.data.dataset import Dataset
from knnkit.errors import DataError
from knnkit.evaluation.metrics import percent
from knnkit.model.reference.spec import KnnSpec, require_plain
from knnkit.render.sanitize import clean
from knnkit.render.terminal import Column, print_line, print_table
from knnkit.training import auditing
from knnkit.training.auditing import Audit, Finding, Kind
from knnkit.training.rows import every_row

_SHOWN = 20
_KINDS: dict[Kind, str] = {
    "contradicted": "rows that their neighbours contradict",
    "duplicate": "rows that equal an earlier row, or nearly",
    "useless": "rows of which any one can be left out without changing the answer to another row",
}


def run(arguments: argparse.Namespace) -> int:
    """Audits the training rows, shows the table, and returns 0."""
    build = _config.one_build(arguments)
    model = build.model
    if arguments.output is not None:
        _output.check_new_file("--output", arguments.output, _config.files_of(build, arguments.config))
    rows = every_row(build)
    if rows.target_classes:
        hint = f"label: {quoted(rows.target_names[0])}; then run it again for each of the other columns"
        raise DataError("audit works only for models with one label column", hint=hint)
    if len(rows.rows) < model.k + 2:
        said = f"{rows.source}: {len(rows.rows)} rows are too few to audit with k = {model.k}"
        raise DataError(said, hint="lower k, or add rows")
    spec = KnnSpec(model.name, model.k, model.metric, model.weights, model.scale, **model.in_float64)
    require_plain(spec, "audit")
    found = auditing.audit(rows, spec)
    if not arguments.json:
        _advise(_show(found, rows), found, build, arguments)
    if arguments.output is not None:
        with whole_file(arguments.output) as file:
            file.write(_csv(found, rows))
    if arguments.json:
        entries = [_entry(each, rows) for each in found.findings]
        counts = {kind: found.count(kind) for kind in _KINDS}
        print(json_codec.dumps({"rows": found.rows, "counts": counts, "findings": entries}))
    return 0


def _entry(finding: Finding, rows: Dataset) -> dict[str, Any]:
    entry = {
        "kind": finding.kind,
        "row": rows.place(finding.row),
        "label": finding.label,
        "neighbours": finding.other,
        "share": finding.share,
        "like": rows.place(finding.like),
        "distance": finding.distance,
    }
    named = {} if rows.ids is None else {"id": str(rows.ids[finding.row]), "like_id": str(rows.ids[finding.like])}
    if rows.files is not None or rows.lines is not None:
        named |= {"where": rows.where(finding.row), "like_where": rows.where(finding.like)}
    return entry | named


def _csv(found: Audit, rows: Dataset) -> bytes:
    """Returns CSV: a line for each finding; its last columns are the features of the row that the finding is about.

    If a feature has the name of another column, such as `distance`, the name of that column begins with `_`.
    """
    buffer = io.StringIO()
    names = ["kind", "row", "label", "neighbours", "share", "like", "distance"]
    names += [] if rows.ids is None else ["id", "like_id"]
    names += [] if rows.files is None and rows.lines is None else ["where", "like_where"]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*(Columns("", rows.feature_names).ours(name) for name in names), *rows.feature_names])
    for each in found.findings:
        writer.writerow([*_entry(each, rows).values(), *map(str, rows.rows[each.row])])
    return buffer.getvalue().encode()


def _show(found: Audit, rows: Dataset) -> int:
    """Prints findings and counts; returns how many findings it printed."""
    columns = ("", Column("row", right=True), "label", "neighbours", Column("votes", right=True), "nearest", "distance")
    shown = []
    for kind in ("contradicted", "duplicate"):
        shown += [each for each in found.findings if each.kind == kind][:_SHOWN]
    lines = [
        (
            each.kind,
            _named(each.row, rows),
            clean(each.label),
            clean(each.other),
            percent(each.share),
            _named(each.like, rows),
            f"{each.distance:.6g}",
        )
        for each in shown
    ]
    if lines:
        print_table(columns, lines)
    for kind, what in _KINDS.items():
        if kind == "useless" and rows.targets is not None:
            continue
        count = found.count(kind)
        print_line(f"{count:,} of {found.rows:,} {what}", stream=sys.stderr)
    return len(shown)


def _advise(shown: int, found: Audit, build: Build, arguments: argparse.Namespace) -> None:
    window = build.model.input is not None and build.model.input.window is not None  # `reduce` refuses windows
    if found.count("useless") > found.rows // 2 and build.model.reduce is None and not window:
        said = f"try: reduce: condensed in {arguments.config}, which keeps rows that classify all others"
        print_line(said, stream=sys.stderr)
    if arguments.output is None and shown < len(found.findings):
        said = f"try: knnkit audit --output audit.csv{_config.flags(arguments)}, which writes all findings"
        print_line(said, stream=sys.stderr)


def _named(row: int, rows: Dataset) -> str:
    place = rows.place(row)
    names = [] if rows.ids is None or not rows.ids[row] else [clean(rows.ids[row], 40)]
    if rows.files is not None:
        names.append(clean(os.path.relpath(rows.where(row))))
    elif rows.lines is not None:
        names.append(f"line {rows.lines[row]}")
    return f"{place} ({', '.join(names)})" if names else str(place)
