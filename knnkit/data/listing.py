"""Reader of small CSV files of text.

They hold paths of raw inputs, or labels of recordings. Reads what spreadsheets export, as `csv_file` does: UTF-8,
UTF-16 or UTF-32; commas, semicolons or tabs.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from device_agent.shared.embedding.files import IN_FOLDERS
from device_agent.shared.file_hints import with_file
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.tabular import csv_dialect
from knnkit.data.csv_file import open_text, text_blocks
from knnkit.data.patterns import TEXTS, nearest
from knnkit.errors import FILE, DataError


def read(file: Path, names: Sequence[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Returns the header of a file, and line number and cells of each row; leaves out empty rows.

    `names` are the columns that the file should have: they show which separator it has, and a hint names them.

    Raises:
        DataError: the file cannot be read, has no rows, or a row has another number of cells than the header.
    """
    hint = f"a CSV file that begins with the line {','.join(names)}"
    try:
        with open_text(file) as stream:
            block, above = csv_dialect.skip_preamble(b"".join(text_blocks(stream)))
        lines = [csv_dialect.text_of(line) for line in block.split(b"\n")]
        separator = csv_dialect.separator_of_header(lines[0], names) or max(csv_dialect.SEPARATORS, key=lines[0].count)
        rows = csv.reader((f"{line}\n" for line in lines), delimiter=separator, strict=True, skipinitialspace=True)
        found = [(above + rows.line_num, [cell.strip() for cell in cells]) for cells in rows]
    except BadInput as error:
        raise DataError(f"{file}: {error}", hint=with_file(error.hint, file) or hint, key=FILE) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        said, hint = getattr(error, "strerror", None) or error, hint if file.exists() else nearest(file, TEXTS, hint)
        raise DataError(f"{file}: cannot be read: {said}", hint=hint, key=FILE) from None
    found = [(line, cells) for line, cells in found if any(cells)]
    if not found:
        raise DataError(f"{file}: cannot be read: it is empty", hint=hint, key=FILE)
    header = csv_dialect.header_names(found[0][1])
    if twice := next((name for name in names if header.count(name) > 1), None):
        raise DataError(f"{file}: two columns are called {twice!r}", hint="rename one of them", key=FILE)
    table = [(line, csv_dialect.without_tail(cells, len(header))) for line, cells in found[1:]]
    if not table:
        raise DataError(f"{file}: there is a header, but no rows", hint="add a line for each file")
    for line, cells in table:
        if len(cells) != len(header):
            said = f"{file}, line {line}: expected {len(header)} cells, found {len(cells)}"
            raise DataError(said, hint="a cell that contains the separator must be in quotes")
    return header, table


def column_of_files(sources: Sequence[Path]) -> str:
    """Returns the first column of the CSV file `sources[0]` whose cells all name sounds, pictures or arrays, or ""."""
    try:
        header, table = read(sources[0], ["path", "label"])
    except DataError:
        return ""
    named = (
        name for place, name in enumerate(header) if all(row[place].lower().endswith(IN_FOLDERS) for _, row in table)
    )
    return next(named, "")
