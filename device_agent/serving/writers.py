"""Renders answers as CSV or JSON lines.

Keeps the order of the rows; never writes. Output line N answers input line N. For a bad line, CSV has empty fields, and
JSON lines have an object with `error` and `line`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.serving.columns import Errors, Form, Kept, LabelColumns, require_apart
from device_agent.serving.npy_writer import NpyRenderer
from device_agent.shared.protocol.constants import UNKNOWN_LABEL

if TYPE_CHECKING:
    from device_agent.inference.tflite_knn import Answers

#: Keys of the numbers of missing cells and unknown categories of an answer's row.
_COUNTS = ("missing", "unknown_categories")
#: Up to this many bytes, joining padded lines and removing the padding is faster than joining line by line.
_SHORT = 32
#: Padding of lines: a byte that UTF-8 text never contains.
_FILLER = b"\xff"


class _LabelLines:
    """Turns class indices into output: `lines` has one line for each class, and a last one for index -1, "unknown"."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines
        width = max(map(len, lines))
        self._even = None
        if width <= _SHORT:
            self._even = np.array([line.ljust(width, _FILLER) for line in lines], f"V{width}")

    def pick(self, labels: NDArray[np.int32]) -> list[bytes]:
        return [self._lines[index] for index in labels.tolist()]

    def join(self, labels: NDArray[np.int32]) -> bytes:
        if self._even is None:
            return b"".join(self.pick(labels))
        return self._even.take(labels).tobytes().translate(None, _FILLER)


class _TextRenderer(Form):
    """Renders one output line for each input line.

    In its methods, `kept` are the columns to copy. A last column may follow, which is not copied: for each row, the
    numbers of missing cells and of unknown categories.
    """

    _labels: Sequence[Any]
    _lines: _LabelLines

    def header(self) -> bytes:
        """Returns the header line; b"" in a format without one."""
        return b""

    def render(self, answers: Answers | None, count: int, errors: Errors, kept: Kept = ()) -> bytes:
        """Returns `count` output lines in the order of the input: an answer or an error for each of its lines.

        Args:
            answers: those of the good lines; None if all lines are bad.
            count: number of lines, good and bad.
            errors: index of each bad line among the `count` lines -> (line number in the input, message).
            kept: for each copied column (`--keep`), its cells in the good lines.
        """
        lines = [] if answers is None else self._join(kept, self._good(answers))
        for place in sorted(errors):
            lines.insert(place, self._bad(*errors[place]))
        return b"".join(lines)

    def render_labels(self, labels: NDArray[np.int32], kept: Kept = ()) -> bytes:
        """Returns lines for (n,) class indices, if the columns are `labels_only`; `kept`: cells by copied column."""
        if not self._columns.keep and not self._counted(kept):
            return self._lines.join(labels)
        return b"".join(self._join(kept, self._lines.pick(labels)))

    def _counted(self, kept: Kept) -> list[tuple[int, tuple[int, int]]]:
        """Returns (row, (missing cells, unknown categories)) of rows with such cells; [] if the format shows none."""
        return []

    def _join(self, kept: Kept, lines: list[bytes]) -> list[bytes]:
        for row, counts in self._counted(kept):
            lines[row] = self._with_counts(counts, lines[row])
        own = kept[: len(self._columns.keep)]
        return [self._with_kept(row, line) for row, line in zip(zip(*own), lines)] if own else lines

    def _known(self, index: int) -> list[Any]:
        """Returns the class of the neighbour with this index, or its targets, one for each column in `_near`."""
        training = self._training
        assert training is not None
        if self._values and training.targets is not None:
            return self._values.known(training.targets[index].tolist())
        return [self._labels[training.classes[index]]]

    def _good(self, answers: Answers) -> list[bytes]:
        raise NotImplementedError

    def _bad(self, number: int, message: str) -> bytes:
        raise NotImplementedError

    def _with_kept(self, row: Sequence[Any], line: bytes) -> bytes:
        raise NotImplementedError

    def _with_counts(self, counts: tuple[int, int], line: bytes) -> bytes:
        raise NotImplementedError


class CsvRenderer(_TextRenderer):
    """Renders CSV lines.

    `[COPIED…,]label[,labels][,proba_CLASS…][,neighbor_i,distance_i,class_i…][,row_i,id_i…][,digest][,local,id]`

    `COPIED` are the columns that --keep copies from the row. Cells are quoted where needed; `labels`, the label set, is
    a JSON array. `neighbor_i` is the index in the model of the i-th neighbour; `row_i` and `id_i` are its number and id
    in the training data. A regression has `value` and `target_i` instead of `label` and `class_i`, or `value_TARGET`
    and `target_TARGET_i` for each of several targets; outlier factors have no `target_i`. A model with several label
    columns has `label_COLUMN` and `class_COLUMN_i` for each. `local` and `id` exist if the release allows rows to be
    taught: `true` and the id of the nearest taught row among the neighbours, or both empty.
    """

    def _prepare(self) -> None:
        self._labels = [str(label) for label in (*self._info.classes, UNKNOWN_LABEL)]  # index -1 is "unknown"
        self._lines = _LabelLines([_csv_line([label, *self._tail("")]) for label in self._labels])
        self._empty = b"," * (len(self._columns.keep) + len(self._names()) - 1) + b"\n"
        require_apart(self._columns.keep, self._names(), "rows")

    def header(self) -> bytes:
        """Returns the header line."""
        return _csv_line([*self._columns.keep, *self._names()])

    def _bad(self, number: int, message: str) -> bytes:
        return self._empty

    def _with_kept(self, row: Sequence[Any], line: bytes) -> bytes:
        return _csv_line(list(map(_cell, row)))[:-1] + b"," + line

    def _names(self) -> list[str]:
        names = list(self._values.columns) if self._values else ["label"]
        names += ["labels"] * bool(self._sets)
        if self._columns.proba:
            names += self._values.shares if self._values else [f"proba_{label}" for label in self._shown]
        if self._columns.neighbors:
            for place in range(1, self._info.k + 1):
                names += [f"{name}_{place}" for name in ("neighbor", "distance", *self._near)]
        if self._training:  # after all of the above, so that their places in lines without a header stay the same
            names += [f"{name}_{place}" for place in range(1, self._info.k + 1) for name in ("row", "id")]
        return names + ["digest"] * self._columns.digest + ["local", "id"] * (self._local is not None)

    def _tail(self, taught: str) -> list[str]:
        """Returns the cells of `digest`, `local` and `id` that are written; `taught`: id of the nearest taught row."""
        local = [] if self._local is None else ["true" * bool(taught), taught]
        return [self._digest] * self._columns.digest + local

    def _good(self, answers: Answers) -> list[bytes]:
        taught = self._local.nearest(answers.indices) if self._local else [""] * len(answers.label)
        if self._columns.labels_only and not self._values:
            lines = self._lines.pick(answers.label)
            for row, name in enumerate(taught):
                if name:
                    lines[row] = _csv_line([self._labels[answers.label[row]], *self._tail(name)])
            return lines
        parts = [[self._labels[index]] for index in answers.label.tolist()]
        if self._values:
            parts = self._values.cells(answers)
        if self._sets:
            for part, labels in zip(parts, self._sets.labels(answers)):
                part.append(json.dumps(labels, ensure_ascii=False))
        if self._columns.proba:
            for part, shares in zip(parts, self._shown_shares(answers)):
                part += map(str, shares)
        if self._columns.neighbors:
            for part, indices, distances in zip(parts, answers.indices, answers.distances):
                part += self._neighbors(indices, distances)
        if self._training:
            for part, indices in zip(parts, answers.indices.tolist()):
                for place, identity in map(self._training.origin, indices):
                    part += ["" if place is None else str(place), identity or ""]
        return [_csv_line(part + self._tail(name)) for part, name in zip(parts, taught)]

    def _shown_shares(self, answers: Answers) -> NDArray[np.float32]:
        """Returns the vote shares of the labels in `_shown`; 0 for a taught label whose rows no longer count."""
        shares, classes = self._shares(answers), self._info.classes
        if self._values or self._shown == classes:
            return shares
        places = [classes.index(label) if label in classes else -1 for label in self._shown]
        return np.pad(shares, ((0, 0), (0, 1)))[:, places]

    def _neighbors(self, indices: NDArray[np.int32], distances: NDArray[np.float32]) -> list[str]:
        fields = []
        for index, distance in zip(indices.tolist(), distances):
            fields += [str(index), str(distance)]
            if self._near:
                fields += map(str, self._known(index))
        return fields


class JsonRenderer(_TextRenderer):
    """Renders JSON lines, such as `{"time": "9:30", "label": "setosa", "probabilities": {"setosa": 1.0}}`.

    First come the columns that --keep copies from the row, then `label`, then what was asked for: `labels`,
    `probabilities`, `neighbors`, `digest`. A neighbour is `{"index", "distance", "label", "row", "id"}`: `index` is its
    position in the model, `row` its number in the training data. A taught row has `"local": true` instead of `row`; an
    answer with a taught row among its neighbours has `"local": true`, too, and the `id` of the nearest. A regression
    has `value` instead of `label`, and a neighbour's `target`: a number, or an object by target; `value` is null for a
    rejected row. With several label columns, `label` and `probabilities` are objects by label column. `missing` and
    `unknown_categories` count such cells of the row, if it has any.
    """

    def _prepare(self) -> None:
        self._labels = (*self._info.classes, UNKNOWN_LABEL)
        tail = {"digest": self._digest} if self._columns.digest else {}
        own = [self._values.key if self._values else "label", "labels", "probabilities", "neighbors", "digest"]
        own += ["error", "line", *_COUNTS * (self._info.table is not None)]
        require_apart(self._columns.keep, own + ["local", "id"] * (self._local is not None), "rows")
        self._lines = _LabelLines([_json_line({"label": label} | tail) for label in self._labels])

    def _bad(self, number: int, message: str) -> bytes:
        return _json_line({"error": message, "line": number})

    def _with_kept(self, row: Sequence[Any], line: bytes) -> bytes:
        return _json_line(dict(zip(self._columns.keep, row)))[:-2] + b", " + line[1:]

    def _counted(self, kept: Kept) -> list[tuple[int, tuple[int, int]]]:
        counts = kept[-1] if len(kept) > len(self._columns.keep) else ()
        return [(row, pair) for row, pair in enumerate(counts) if pair[0] or pair[1]]

    def _with_counts(self, counts: tuple[int, int], line: bytes) -> bytes:
        found = {name: count for name, count in zip(_COUNTS, counts) if count}
        return line[:-2] + b", " + _json_line(found)[1:]

    def _good(self, answers: Answers) -> list[bytes]:
        taught = self._local.nearest(answers.indices) if self._local else [""] * len(answers.label)
        if self._columns.labels_only and not self._values:
            lines = self._lines.pick(answers.label)
        else:
            columns = self._answered(answers)
            lines = [_json_line(dict(zip(columns, row))) for row in zip(*columns.values())]
        for row, name in enumerate(taught):
            if name:
                lines[row] = lines[row][:-2] + b", " + _json_line({"local": True, "id": name})[1:]
        return lines

    def _answered(self, answers: Answers) -> dict[str, Sequence[Any]]:
        """Returns key -> its value in each of `answers`, in the order of the keys in a line."""
        columns: dict[str, Sequence[Any]] = {}
        if self._values:
            columns[self._values.key] = self._values.plain(answers)
        else:
            columns["label"] = [self._labels[code] for code in answers.label.tolist()]
        if self._sets:
            columns["labels"] = self._sets.labels(answers)
        if self._columns.proba:
            columns["probabilities"] = list(map(self._probabilities, self._shares(answers)))
        if self._columns.neighbors:
            pairs = zip(answers.indices.tolist(), answers.distances)
            columns["neighbors"] = [list(map(self._neighbor, *pair)) for pair in pairs]
        if self._columns.digest:
            columns["digest"] = [self._digest] * len(answers.label)
        return columns

    def _probabilities(self, shares: NDArray[np.float32]) -> dict[str, Any]:
        own = [float(str(share)) for share in shares]  # the shortest text that reads back as the same float32
        if isinstance(self._values, LabelColumns):
            return self._values.by_label(own)
        return dict(zip(map(str, self._info.classes), own))

    def _neighbor(self, index: int, distance: np.float32) -> dict[str, Any]:
        neighbor: dict[str, Any] = {"index": index, "distance": float(str(distance))}
        if self._training:
            if self._near:
                known, own = self._known(index), self._values
                neighbor |= {own.near_key: own.by_target(known)} if own else {"label": known[0]}
            row, name = self._training.origin(index)
            neighbor |= {} if row is None else {"row": row}
            neighbor |= {} if name is None else {"id": name}
            if self._local and index >= self._local.first:
                neighbor["local"] = True
        return neighbor


Renderer = CsvRenderer | JsonRenderer | NpyRenderer
RENDERERS: dict[str, type[CsvRenderer] | type[JsonRenderer] | type[NpyRenderer]] = {
    "csv": CsvRenderer,
    "jsonl": JsonRenderer,
    "npy": NpyRenderer,
}


def _csv_line(fields: list[str]) -> bytes:
    if any(not text or not text.isalnum() for text in fields):
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(fields)
        return buffer.getvalue().encode()
    return ",".join(fields).encode() + b"\n"


def _cell(value: Any) -> str:
    """Returns a value to copy as text: "" for None, JSON for text with line breaks and for what is not text."""
    if isinstance(value, str) and "\n" not in value and "\r" not in value:
        return value
    return "" if value is None else json.dumps(value)


def _json_line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
