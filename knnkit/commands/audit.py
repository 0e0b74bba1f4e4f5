"""`knnkit audit`: doubtful labels, near duplicates and useless rows.

Rows are numbered from 0, as in the file of deploy.yaml. Builds nothing, changes nothing.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from typing import Any

from numpy.typing import NDArray

from device_agent.shared.protocol import json_codec
from device_agent.shared.safe_files import whole_file
from knnkit.commands import _config
from knnkit.data.dataset import Dataset
from knnkit.errors import DataError
from knnkit.model.reference.spec import KnnSpec
from knnkit.render.sanitize import clean, percent
from knnkit.render.terminal import Column, Table, print_line, print_table
from knnkit.training import auditing, source
from knnkit.training.auditing import Audit, Finding

_SHOWN = 20
_KINDS = {
    "contradicted": "rows whose neighbours contradict their label",
    "duplicate": "rows that repeat an earlier row, or nearly",
    "useless": "rows without which no other row gets another answer",
}


def run(arguments: argparse.Namespace) -> int:
    """Audits, shows the table, and returns 0."""
    build = _config.one_build(arguments)
    model = build.model
    rows = source.every_row(build)
    if len(rows.rows) < model.k + 2:
        said = f"{rows.source}: {len(rows.rows)} rows are too few to audit with k = {model.k}"
        raise DataError(said, hint="lower k, or more rows")
    found = auditing.audit(rows, KnnSpec(model.name, model.k, model.metric, model.weights, model.scale))
    ids = rows.ids
    if arguments.output is not None:
        with whole_file(arguments.output) as file:
            file.write(_csv(found, rows, ids))
    if arguments.json:
        entries = [_entry(each, ids) for each in found.findings]
        counts = {kind: found.count(kind) for kind in _KINDS}  # type: ignore[arg-type]
        print(json_codec.dumps({"rows": found.rows, "counts": counts, "findings": entries}))
        return 0
    _show(found, ids)
    return 0


def _entry(finding: Finding, ids: NDArray[Any] | None) -> dict[str, Any]:
    entry = {
        "kind": finding.kind,
        "row": finding.row,
        "label": finding.label,
        "neighbours": finding.other,
        "share": finding.share,
        "like": finding.like,
        "distance": finding.distance,
    }
    named = {} if ids is None else {"id": str(ids[finding.row]), "like_id": str(ids[finding.like])}
    return entry | named


def _csv(found: Audit, rows: Dataset, ids: NDArray[Any] | None) -> bytes:
    """Returns one line a finding, with the features of the row at the end."""
    buffer = io.StringIO()
    names = ["kind", "row", "label", "neighbours", "share", "like", "distance"]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*names, *(["id", "like_id"] if ids is not None else []), *rows.feature_names])
    for each in found.findings:
        writer.writerow([*_entry(each, ids).values(), *map(str, rows.rows[each.row])])
    return buffer.getvalue().encode()


def _show(found: Audit, ids: NDArray[Any] | None) -> None:
    columns = ("", Column("row", right=True), "label", "neighbours", Column("votes", right=True), "nearest", "distance")
    shown = []
    for kind in ("contradicted", "duplicate"):
        shown += [each for each in found.findings if each.kind == kind][:_SHOWN]
    rows = tuple(
        (
            each.kind,
            _named(each.row, ids),
            clean(each.label),
            clean(each.other),
            percent(each.share),
            _named(each.like, ids),
            f"{each.distance:.6g}",
        )
        for each in shown
    )
    table = Table(columns, rows)
    if rows:
        print_table(table.columns, table.rows)
    for kind, what in _KINDS.items():
        count = found.count(kind)  # type: ignore[arg-type]
        print_line(f"{count:,} of {found.rows:,} {what}", stream=sys.stderr)
    if found.count("useless") > found.rows // 2:
        print_line("try: reduce: condensed in deploy.yaml, which keeps the rows that matter", stream=sys.stderr)
    if len(shown) < len(found.findings):
        print_line("try: knnkit audit --output audit.csv, which has all of them", stream=sys.stderr)


def _named(row: int, ids: NDArray[Any] | None) -> str:
    return str(row) if ids is None else f"{row} ({clean(ids[row], 40)})"
