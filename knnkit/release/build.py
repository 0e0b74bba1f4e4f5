"""Builds a signed release directory.

A release is a directory of four files: the model (model.tflite), rows to check it with (golden.npz), a description
(release.json) and the signature over all of them (model.sig). All files are written to a hidden folder, which then
replaces the old release by a rename; after a failed build, the old release is unchanged. `knnkit.training` loads the
rows and builds the model.
"""

from __future__ import annotations

import contextlib
import filecmp
import gzip
import hashlib
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from device_agent import __version__
from device_agent.shared.arguments import require, whole
from device_agent.shared.console.lists import first_of
from device_agent.shared.golden.error_gates import described, described_columns, scores_of
from device_agent.shared.protocol import constants, json_codec, model_info
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.versions import utc
from device_agent.shared.release import model_file
from device_agent.shared.trust import dsse
from knnkit.config.parse import Build
from knnkit.data import columns
from knnkit.errors import BuildError, UsageError, VerificationFailed
from knnkit.evaluation import metrics
from knnkit.evaluation.metrics import Figures, percent
from knnkit.release import gates, manifest, provenance, up_to_date
from knnkit.release.card import CardFacts
from knnkit.release.replacing import replacing, require_writable
from knnkit.release.sbom import bill_of_materials
from knnkit.release.signing import Signer, sign_release
from knnkit.release.verify import verify_with
from knnkit.training import outvoted, source
from knnkit.training.made import Made
from knnkit.training.source import Material

#: Files of macOS, Windows and KDE's file managers.
_DESKTOP = (".DS_Store", "Thumbs.db", "desktop.ini", ".directory")
#: Most extra files that an error names.
_NAMED = 10
#: Most digits of a time in seconds; more are milliseconds.
_DIGITS = 12
#: How far a sequence may be ahead of the clock without a warning, in seconds: clocks differ a little.
_AHEAD = 24 * 3600


@dataclass(frozen=True, repr=False)
class Built:
    """Result of a build. `fresh` is False if the release was already up to date; `digest` identifies the release."""

    directory: Path
    manifest: model_info.Manifest
    info: model_info.KnnInfo
    digest: str
    fresh: bool
    accuracy: float | None
    accuracy_rows: int
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def figures(self) -> Figures | None:
        """Accuracy, recall and so on, on all held-out rows, overall and by class; None if nothing was measured."""
        return metrics.of_evaluation(self.info.evaluation, self.info.classes)

    def __repr__(self) -> str:
        """Returns the text that a notebook shows."""
        what = f"{self.manifest.name} {self.manifest.version} (sequence {self.manifest.sequence})"
        rows = constants.counted(self.accuracy_rows, "row")
        shown = "accuracy " + ("not measured" if self.accuracy is None else f"{percent(self.accuracy)} on {rows}")
        if targets := self.info.targets:
            shown = described(targets.errors) or described_columns(scores_of(targets))
        return f"<Built {what} in {self.directory}: {shown}>"


@dataclass(frozen=True)
class ReleaseOptions:
    """What a release says beside its model: gates, version, release number, lifetime, device class, settings."""

    gates: model_info.Gates  # limits that a device must meet
    version: str  # for people
    sequence: int | None = None  # None: the time of the build
    expires: float | None = None  # seconds after the build; None: never
    device_class: str = "any"
    seed: int = 0  # of random samples
    inputs: str = ""  # digest of the build's inputs (`up_to_date.digest`); empty if it is not needed
    settings: Mapping[str, Any] = field(default_factory=dict)  # the model in deploy.yaml, without folders
    golden_rows: int | None = None  # most golden rows; None: the usual number

    def __post_init__(self) -> None:
        hint = "device_agent.shared.protocol.model_info.Gates(accuracy=0.9)"
        require(isinstance(self.gates, model_info.Gates), "gates", self.gates, BuildError, hint)
        for name, value in (("version", self.version), ("device_class", self.device_class)):
            good = isinstance(value, str) and (constants.is_version if name == "version" else constants.is_name)(value)
            require(good, name, value, BuildError, f"letters, digits, '.', '_' and '-', at most 64: {name}='1.0'")
        whole(self.seed, "seed", BuildError, 0, 2**32 - 1)
        if self.sequence is not None:
            object.__setattr__(self, "sequence", whole(self.sequence, "sequence", BuildError, 1, 2**53 - 1))


def build_release(
    build: Build, signer: Signer, *, out: Path | None = None, step: Callable[[str], None] = lambda text: None
) -> Built:
    """Builds and signs the release of `build` in `out` (default: its `release.dir`), replacing a release there.

    Calls `step` with a text that says what begins, such as "checking the model".

    Raises:
        DataError: a file, column or cell of the training data is missing or cannot be used.
        BuildError: the model cannot be built, its self-check fails, or `out` holds other files than a release.
        MissingDependency: TensorFlow or scikit-learn is not installed.
        VerificationFailed: a device would refuse the new release.
        UsageError: $SOURCE_DATE_EPOCH is not a time in seconds.
    """
    release, model, directory = build.release, build.model, (out or build.release.dir).absolute()
    with build.line_in_errors():
        _require_replaceable(directory)
        options = ReleaseOptions(
            gates.of_config(build.gates),
            release.version,
            release.sequence,
            release.expires,
            model.device_class,
            model.seed,
            up_to_date.digest(build),
            up_to_date.settings(build),
            None if model.golden is None else model.golden.rows,
        )
        step("loading the rows")
        return write_release(source.load(build), options, signer, directory, step)


def write_release(
    made_from: Material,
    options: ReleaseOptions,
    signer: Signer,
    directory: Path,
    step: Callable[[str], None] = lambda text: None,
) -> Built:
    """Builds and signs a release of `made_from` in `directory`, replacing one; raises the errors of `build_release`."""
    directory = directory.absolute()
    _require_replaceable(directory)
    created = _pinned_clock()
    options = replace(options, gates=gates.fitting(options.gates, made_from))
    golden_rows: dict[str, Any] = {"seed": options.seed, "golden_rows": options.golden_rows}
    made_from = made_from.enrolled(**golden_rows)
    made = made_from.build(options.gates, inputs=options.inputs, step=step, **golden_rows)
    model, golden = made.model, made.golden.to_bytes()
    warnings = (*made_from.warnings, *model.warnings, *made.warnings, *_learnt_nothing(model.info))
    if model.info.targets is None:
        warnings += outvoted.find(made_from.spec, model.info.classes, made.counts)
    parts = model.parts(_papers(made_from, made, options, golden, warnings))
    document = _manifest(options, made, directory, int(time.time()) if created is None else created)
    with replacing(directory) as folder:
        with (folder / constants.MODEL_FILE).open("wb") as file:
            file.writelines(parts)
        files = {constants.GOLDEN_FILE: golden, constants.MANIFEST_FILE: manifest.write_manifest(document)}
        for name, content in {**files, **made.stages}.items():
            (folder / name).write_bytes(content)
        again = _same_version(directory, document, folder / constants.MODEL_FILE)
        signed = sign_release(folder, signer)
    return Built(
        directory,
        document,
        model.info,
        signed.digest,
        True,
        *_measured(model.info),
        (*warnings, *_far_ahead(document), *again),
        made.notes,
    )


def _papers(
    made_from: Material, made: Made, options: ReleaseOptions, golden: bytes, warnings: tuple[str, ...]
) -> dict[str, bytes]:
    """Returns name -> content of the files for people inside the model: card, provenance and bill of materials."""
    info, settings = made.model.info, options.settings
    for path in made_from.sources:  # the folder is not part of the model: same rows, same bytes
        warnings = tuple(text.replace(path, Path(path).name) for text in warnings)
    split = settings.get("split") or ""
    facts = CardFacts(
        made.counts, warnings, str(settings.get("licence", "")), str(settings.get("notes", "")), str(split)
    )
    command = "knnkit build" if settings else "knnkit.TfKNN.build_release"
    proof = provenance.statement(info, made.model.graph, golden, made_from.sources, settings, command)
    return {
        constants.CARD_FILE: json_codec.dump_file(facts),
        constants.PROVENANCE_FILE: proof,
        constants.SBOM_FILE: gzip.compress(bill_of_materials(info, options.version), mtime=0),
    }


def _measured(info: model_info.KnnInfo) -> tuple[float | None, int]:
    """Returns the accuracy on the held-out rows and their number; (None, 0) if nothing was measured."""
    found = info.evaluation
    return (None, 0) if found is None else (sum(found.right) / found.rows, found.rows)


def _far_ahead(document: model_info.Manifest) -> tuple[str, ...]:
    """Returns a warning if the release number is a future time, before which devices refuse later builds; else ()."""
    if document.sequence <= max(document.created, time.time()) + _AHEAD:
        return ()
    return (
        f"sequence {document.sequence} is ahead of the clock: by default, it is the time of the build, so a device "
        f"that runs this release refuses later builds until {utc(document.sequence)}. Leave out release.sequence; "
        f"if you keep it, the next release needs release.sequence: {document.sequence + 1}",
    )


def _learnt_nothing(info: model_info.KnnInfo) -> tuple[str, ...]:
    """Returns a warning if a model is less accurate than always giving the most frequent answer; else ()."""
    (accuracy, _), rows = _measured(info), info.evaluation.support if info.evaluation else ()
    if accuracy is None or sum(map(bool, rows)) < 2 or accuracy >= max(rows) / sum(rows):
        return ()
    answer = info.classes[rows.index(max(rows))]
    said = f"the accuracy {percent(accuracy)} is lower than that of the constant answer {answer!r}"
    numbers = columns.numbers_as_classes(info.classes)
    mend = "scale: standard, other features, or is another column the label?"
    return (f"{info.name}: {said} ({percent(max(rows) / sum(rows))}); {mend}{numbers and f'. {numbers}'}",)


def _pinned_clock() -> int | None:
    """Returns $SOURCE_DATE_EPOCH in seconds since 1970; None if it is not set."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if text and not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise UsageError(
            f"SOURCE_DATE_EPOCH is {text[:40]!r}, not a number of seconds since 1970",
            hint="unset SOURCE_DATE_EPOCH, or: export SOURCE_DATE_EPOCH=$(date +%s)",
        )
    return int(text) if text else None


def _manifest(options: ReleaseOptions, made: Made, directory: Path, created: int) -> model_info.Manifest:
    sequence, info = options.sequence, made.model.info
    if sequence is None:  # two builds within a second must not share a sequence
        old = up_to_date.manifest_in(directory)
        sequence = max(created, old.sequence + 1 if old else 0)
    document = model_info.Manifest(
        name=info.name,
        version=options.version,
        sequence=sequence,
        created=created,
        expires=None if options.expires is None else created + int(options.expires),
        device_class=options.device_class,
        minimum_agent=__version__,
        minimum_runtime=info.minimum_runtime,
        k=info.k,
        n_features=info.n_features,
        labels_sha256=hashlib.sha256(made.model.files[constants.LABELS_FILE]).hexdigest(),
        gates=options.gates,
    )
    return manifest.read_manifest(manifest.write_manifest(document))  # checks the rules of devices


def _same_version(directory: Path, document: model_info.Manifest, model: Path) -> tuple[str, ...]:
    """Returns a warning if `directory` holds a release with the same name and version, but another model; else ().

    `document` is the manifest of the new release, `model` its model file.
    """
    old = up_to_date.manifest_in(directory)
    if old is None or (old.name, old.version) != (document.name, document.version):
        return ()
    with contextlib.suppress(OSError):
        if filecmp.cmp(directory / constants.MODEL_FILE, model, shallow=False):
            return ()
    return (
        f"{old.name} {old.version} was built before from other inputs (sequence {old.sequence}): the two differ "
        "only in their digests. Change release.version",
    )


def _require_replaceable(directory: Path) -> None:
    around = directory.parent
    if (around / constants.MODEL_FILE).exists() and (around / constants.MANIFEST_FILE).exists():
        raise BuildError(
            f"{around} is itself a release; a folder {directory.name!r} in it would damage it: nothing was built",
            hint=f"choose another release: dir, or move it: {shlex.join(['mv', str(around), f'{around}-old'])}",
        )
    require_writable(directory)
    if not directory.exists():
        return
    if not directory.is_dir():
        raise BuildError(f"{directory} is not a folder", hint="choose another release: dir, or -o")
    _remove_desktop_files(directory)
    others = sorted(entry for entry in directory.iterdir() if entry.name not in constants.POSSIBLE_FILES)
    if others:
        names = first_of([repr(each.name) for each in others], _NAMED)
        said = f"{directory} holds {names}, which do not belong to a release; nothing was replaced"
        raise BuildError(said, hint=f"choose another release: dir, or -o{_or_remove(directory, others)}")


def _or_remove(directory: Path, others: Sequence[Path]) -> str:
    """Returns text to append to a hint: the command `rm` for `others`, files in the release that do not belong there.

    Returns "" if there are too many to name, or if `directory` holds no release: it may be a folder of the user's own.
    """
    if up_to_date.manifest_in(directory) is None or len(others) > _NAMED:
        return ""
    kind = "-r " if any(each.is_dir() and not each.is_symlink() for each in others) else ""
    return f"; or remove them: rm {kind}{shlex.join(map(str, others))}"


def _remove_desktop_files(directory: Path) -> None:
    """Removes files such as .DS_Store from a release: file managers write them, and a release may not contain them."""
    for name in _DESKTOP if up_to_date.manifest_in(directory) else ():
        path = directory / name
        if path.is_file() and not path.is_symlink():
            path.unlink()


def ensure_release(
    build: Build, signer: Signer, *, out: Path | None = None, step: Callable[[str], None] = lambda text: None
) -> Built:
    """Returns the release of `build` in `out`; builds it only if its inputs have changed, or another key signed it.

    If there is nothing to build, loads neither TensorFlow nor scikit-learn, and does not call `step`; else calls it as
    `build_release` does. Raises the errors of `build_release`.
    """
    directory = (out or build.release.dir).absolute()
    _remove_desktop_files(directory)
    with build.line_in_errors():
        if kept := _kept(directory, build, signer):
            return kept
    return build_release(build, signer, out=out, step=step)


def _kept(directory: Path, build: Build, signer: Signer) -> Built | None:
    if not up_to_date.is_built(directory, build):
        return None
    try:
        verdict = verify_with(directory, {dsse.fingerprint(signer.public_pem): signer.public_pem})
        info = model_file.read_info(directory / constants.MODEL_FILE)
    except (VerificationFailed, ModelUnusable):
        return None
    warnings = (*verdict.warnings, *_far_ahead(verdict.manifest))
    return Built(directory, verdict.manifest, info, verdict.digest, False, *_measured(info), warnings)
