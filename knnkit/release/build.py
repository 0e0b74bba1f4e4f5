"""deploy.yaml's model to a signed release directory: model.tflite, golden.npz, release.json, model.sig.

Everything is made in a hidden folder beside the release and takes its place in one rename: a failed build leaves the
release that was there. The numbers come from `knnkit.model`; this module only arranges them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from device_agent import contract
from device_agent.errors import ModelUnusable
from knnkit.config import Build, FileData, TestFile
from knnkit.errors import BuildError, MissingDependency, VerificationFailed
from knnkit.release import inputs, manifest
from knnkit.release.signing import Signer, sign_release

if TYPE_CHECKING:
    from device_agent.judge import Golden, Verdict
    from knnkit.model.build import BuiltModel
    from knnkit.model.dataset import Dataset


@dataclass(frozen=True)
class Built:
    """What a build left: `fresh` is False where the release was there already; `digest` is its OMS root digest."""

    directory: Path
    manifest: contract.Manifest
    info: contract.KnnInfo
    digest: str
    fresh: bool
    accuracy: float | None
    accuracy_rows: int
    warnings: tuple[str, ...] = ()


def build_release(build: Build, signer: Signer, *, out: Path | None = None) -> Built:
    """Builds and signs the release of `build` in `out` (its `release.dir` if left out), replacing the one there.

    Raises:
        DataError: the training data is not fit.
        BuildError: the model cannot be built, its own check fails, or `out` holds something else than a release.
        MissingDependency: TensorFlow or scikit-learn is not installed.
        VerificationFailed: the release does not verify.
    """
    directory = (out or build.release.dir).absolute()
    _require_replaceable(directory)
    asked = inputs.digest(build)
    training, held_out = load_data(build)
    gates = contract.Gates(**build.gates.model_dump())
    model, golden, verdict = _make(build, training, held_out, gates, asked)
    document = _manifest(build, model, gates, directory)
    with _replacing(directory) as folder:
        (folder / contract.MODEL_FILE).write_bytes(model.data)
        (folder / contract.GOLDEN_FILE).write_bytes(golden.to_bytes())
        (folder / contract.MANIFEST_FILE).write_bytes(manifest.write_manifest(document))
        signed = sign_release(folder, signer)
    return Built(
        directory,
        document,
        model.info,
        signed.digest,
        True,
        verdict.accuracy,
        verdict.accuracy_rows,
        model.warnings,
    )


def load_data(build: Build) -> tuple[Dataset, Dataset | None]:
    """Returns training and held-out rows of `build`; None where nothing is held out.

    Raises:
        DataError: a file, column or cell is not fit, or too few rows are left.
        MissingDependency: a package of `knnkit[build]` is not installed.
    """
    from knnkit.model import dataset

    data, test = build.model.data, build.model.test
    if isinstance(data, FileData):
        everything = dataset.load(data.file, data.label, data.features)
    else:
        everything = dataset.load_sklearn(data.sklearn)
    if isinstance(test, TestFile):
        label = test.label or (data.label if isinstance(data, FileData) else "label")
        return everything, dataset.load(test.file, label, everything.feature_names)
    if test == 0.0:
        return everything, None
    return dataset.split(everything, test, build.model.seed)


def _make(
    build: Build, training: Dataset, held_out: Dataset | None, gates: contract.Gates, asked: str
) -> tuple[BuiltModel, Golden, Verdict]:
    model = _build_model(build, training, held_out, asked)
    from knnkit.model.selfcheck import self_check
    from knnkit.release.golden import make_golden

    golden = make_golden(model, held_out, training, seed=build.model.seed)
    return model, golden, self_check(model, golden, gates)


def _build_model(build: Build, training: Dataset, held_out: Dataset | None, asked: str) -> BuiltModel:
    from knnkit.model.spec import KnnSpec

    model = build.model
    spec = KnnSpec(model.name, model.k, model.metric, model.weights, model.scale, model.reject)
    try:
        from knnkit.model.hush import load_tensorflow

        load_tensorflow()
        from knnkit.model.build import build_model

        return build_model(spec, training, held_out, margin=build.gates.margin, seed=build.model.seed, inputs=asked)
    except ModuleNotFoundError as error:
        package = {"sklearn": "scikit-learn"}.get(error.name or "", error.name)
        raise MissingDependency(f"building a model needs {package}", hint="pip install 'knnkit[build]'") from None


def _manifest(build: Build, model: BuiltModel, gates: contract.Gates, directory: Path) -> contract.Manifest:
    from knnkit.model.metadata import label_file

    created = int(os.environ.get("SOURCE_DATE_EPOCH", "") or time.time())
    release = build.release
    sequence = release.sequence
    if sequence is None:  # two builds within a second must not share a sequence
        sequence = max(created, _sequence_of(directory) + 1)
    return manifest.new_manifest(
        name=model.info.name,
        version=release.version,
        k=model.info.k,
        n_features=model.info.n_features,
        labels_sha256=hashlib.sha256(label_file(model.info.classes)).hexdigest(),
        minimum_runtime=model.info.minimum_runtime,
        gates=gates,
        device_class=build.model.device_class,
        sequence=sequence,
        created=created,
        expires=None if release.expires is None else created + int(release.expires),
    )


def _sequence_of(directory: Path) -> int:
    try:
        return manifest.read_manifest((directory / contract.MANIFEST_FILE).read_bytes()).sequence
    except (OSError, VerificationFailed):
        return 0


def _require_replaceable(directory: Path) -> None:
    if not directory.exists():
        return
    if not directory.is_dir():
        raise BuildError(f"{directory} is not a folder", hint="choose another release: dir, or -o")
    strangers = sorted(entry.name for entry in directory.iterdir() if entry.name not in contract.RELEASE_FILES)
    if strangers:
        raise BuildError(
            f"{directory} holds {strangers[0]!r}, which is no part of a release; nothing was replaced",
            hint="choose another release: dir, or -o",
        )


@contextlib.contextmanager
def _replacing(directory: Path) -> Iterator[Path]:
    """Yields a new folder of the same name, which takes the place of `directory` if the block succeeds."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".build-") as beside:
            folder = Path(beside) / directory.name
            folder.mkdir()
            yield folder
            if directory.exists():
                directory.rename(Path(beside) / "replaced")
            folder.rename(directory)
    except OSError as error:
        raise BuildError(f"{directory} cannot be written: {error.strerror or error}") from None


def ensure_release(build: Build, signer: Signer, *, out: Path | None = None) -> Built:
    """Returns the release of `build`, building it only when its inputs changed or it was signed by another key.

    Loads neither TensorFlow nor scikit-learn when there is nothing to build.

    Raises:
        See `build_release`.
    """
    directory = (out or build.release.dir).absolute()
    kept = _kept(directory, build, signer)
    return kept or build_release(build, signer, out=out)


def _kept(directory: Path, build: Build, signer: Signer) -> Built | None:
    from device_agent import modelfile
    from device_agent.trust import dsse
    from knnkit.release.verify import verify_with

    if not inputs.is_built(directory, build):
        return None
    try:
        verdict = verify_with(directory, {dsse.fingerprint(signer.public_pem): signer.public_pem})
        info = modelfile.read_info(directory / contract.MODEL_FILE)
    except (VerificationFailed, ModelUnusable):
        return None
    return Built(directory, verdict.manifest, info, verdict.digest, False, None, 0, verdict.warnings)
