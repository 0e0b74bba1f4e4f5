"""`knnkit inspect`: shows what a model or release holds.

Loads no TensorFlow; does not verify signatures (see `knnkit verify`)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from device_agent.shared.console.lists import listed
from device_agent.shared.embedding.decode import takes
from device_agent.shared.protocol import constants, json_codec, model_info
from device_agent.shared.protocol.input_info import Input
from device_agent.shared.protocol.table_info import Column
from device_agent.shared.protocol.versions import utc
from device_agent.shared.release import model_file
from device_agent.shared.safe_files import read_small, sha256_of
from knnkit.commands import _inspect_row, _output
from knnkit.errors import UsageError, raised_as
from knnkit.evaluation.metrics import percent
from knnkit.release import describe
from knnkit.release.manifest import read_manifest
from knnkit.render import card, figures
from knnkit.render.sanitize import clean, count


def run(arguments: argparse.Namespace) -> int:
    """Prints the content of a model or release; returns 0."""
    path: Path = arguments.path
    model = _output.model_file(path)
    if arguments.row is not None:
        return _inspect_row.show(model, arguments.row, json=arguments.json)
    with raised_as(UsageError):
        info = model_file.read_info(model)
        folded = describe.folded_in(model, info)
    manifest = _manifest(path) if path.is_dir() else None
    sha256 = sha256_of(model)
    if arguments.json:
        told = {"model": json_codec.to_plain(info), "folded_in": list(folded), "sha256": sha256}
        print(json_codec.dumps(told | {"release": json_codec.to_plain(manifest)}))
        return 0
    lines = [*_model_lines(info, folded), ("model file", f"{model.stat().st_size:,} bytes, sha256 {sha256}")]
    if manifest is not None:
        lines += _release_lines(manifest)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {clean(value)}")
    return 0


def _described(column: Column) -> str:
    """Returns a line of text about a column of the user's data: its kind, and what a missing cell becomes."""
    if column.encoding == "unused":
        return f"{column.name}: not used"
    number = column.encoding == "number"
    kind = "numbers" if number else f"{column.encoding} of {listed(column.categories)}"
    fill = "" if column.fill is None else f"{column.fill:.7g}" if number else column.categories[int(column.fill)]
    missing = "a row with a missing cell is refused" if column.fill is None else f"a missing cell is {fill}"
    if column.missing == "keep":
        return f"{column.name}: {kind}; the transforms accept a missing cell"
    return f"{column.name}: {kind}; {missing} (missing: {column.missing})"


def _model_lines(info: model_info.KnnInfo, folded: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    yield "model", info.name
    yield ("neighbours", f"{info.how}{'' if folded else f', scale {info.scale}'}")
    if folded:
        yield "steps", "; ".join(folded)
    yield "training rows", f"{info.n_train:,} x {count(info.n_features, 'feature')}"
    if info.reduced is not None:
        all_rows = f"{count(info.reduced.rows, 'row')} with accuracy {percent(info.reduced.accuracy)}"
        yield "reduced", f"{info.reduced.how}, from {all_rows}"
    yield "features", listed(info.feature_names)
    if info.table is not None:
        yield from (("column", _described(column)) for column in info.table.columns if column != Column(column.name))
        if info.table.transforms:
            yield "transforms", ", ".join(each.kind for each in info.table.transforms)
    if info.input is not None:
        yield from _input_lines(info.input)
    if info.origin is not None:
        moved = [f"{name} - {start:.15g}" for name, start in zip(info.feature_names, info.origin) if start]
        yield "origin", f"subtracted from each row in float64: {', '.join(moved)}"
    if info.targets is None:
        yield "classes", f"{len(info.classes)}: {listed([*map(str, info.classes)])}"
    else:
        yield "targets", f"{len(info.targets.names)}: {listed(info.targets.names)}"
    for name, labels in zip(info.targets.names, info.targets.classes) if info.targets else ():
        yield "classes", f"{name}: {len(labels)}: {listed([*map(str, labels)])}"
    if info.reject is not None:
        measured = ""
        if info.reject.measured is not None:
            measured = (
                f"; accepts {percent(info.reject.measured)} of {count(info.reject.measured_rows, 'held-out row')}"
            )
        yield ("unknown", f"for rows farther away than {figures.accepted(info.reject)}{measured}")
    yield from (("evaluation", line) for line in figures.lines_of(info))
    if info.searched is not None or info.quantized is not None:
        where = "all coordinates" if info.searched is None else f"a projection of {info.searched} coordinates"
        how = "" if info.quantized is None else ", in int8 if the runtime is fast with it"
        yield "search", f"in {where}{how}, then exactly among the candidates found there"
    if info.lattice is not None:
        yield (
            "search",
            f"exact in float32, also for ties, if all numbers are multiples of {info.lattice:g} and not too large",
        )
    if info.cells is not None:
        yield "search", "among the rows listed for the query's grid cell; outside the grid, among all rows"
    if info.groups is not None:
        yield "search", f"in NumPy, among {info.groups:,} groups of rows; groups that are too far away are not read"
    yield "batch", f"{info.batch} rows" + ("" if info.quantized is None else f", {info.quantized} with int8")
    yield "needs", f"TFLite runtime {info.minimum_runtime}"
    yield "built with", ", ".join(f"{tool} {version}" for tool, version in sorted(info.versions.items()))
    yield "training data", f"sha256 {info.fingerprint}"


def _input_lines(input: Input) -> Iterator[tuple[str, str]]:
    """Yields (name, value) of each line about the model's raw inputs and its stages."""
    if input.audio is not None:
        length = "" if input.audio.seconds is None else f", {input.audio.seconds:g} s"
        yield "input", f"{takes(input)}: {input.audio.rate} Hz{length}, full scale {input.audio.full_scale:g}"
    elif input.image is not None:
        size = " x ".join(map(str, (*input.image.size, input.image.channels)))
        yield "input", f"{takes(input)}: {size}, resize {input.image.resize}"
    elif input.window is not None:
        yield "input", f"windows of {input.window.rows:,} samples, hop {input.window.hop:,}"
        yield "columns", ", ".join(input.window.columns)
        if input.window.time is not None:
            yield "gap", f"no window spans a step of {input.window.time} above {input.window.gap:g} or below 0"
        if input.window.recording is not None:
            yield "recording", f"no window spans two values of {input.window.recording}"
    else:
        yield "input", takes(input) if input.width is None else f"{takes(input)}: rows of {input.width:,}"
    for stage in input.stages:
        shape = " x ".join("?" if length == -1 else str(length) for length in stage.shape)
        windows = "" if stage.frames is None else f", on windows of {stage.frames} rows, hop {stage.hop}"
        scaled = "" if (stage.multiply, stage.add) == (1.0, 0.0) else f", then * {stage.multiply:g} + {stage.add:g}"
        yield "stage", f"{stage.file}: {stage.dtype} {shape}{windows}{scaled}; sha256 {stage.sha256}"
    if input.pool:
        yield "pool", ", ".join(input.pool)
    if input.stages:
        yield (
            "bound",
            f"a device's rows may be {input.bound:g} of the k-th distance (or of the rows' spread) off the host's",
        )


def _release_lines(manifest: model_info.Manifest) -> Iterator[tuple[str, str]]:
    yield "release", f"{manifest.name} {manifest.version}, sequence {manifest.sequence}"
    yield "created", utc(manifest.created)
    yield "expires", "never" if manifest.expires is None else utc(manifest.expires)
    yield "device class", manifest.device_class
    yield "needs agent", manifest.minimum_agent
    yield "gates", f"{card.gates_line(manifest.gates)} (margin {manifest.gates.margin:g})"


def _manifest(directory: Path) -> model_info.Manifest | None:
    path = directory / constants.MANIFEST_FILE
    if not path.is_file():
        return None
    return read_manifest(read_small(path, constants.MAX_MANIFEST, follow=True))
