"""Imported: a classifier from scikit-learn as knnkit holds it, and how it becomes a model or a release.

`knnkit.training.sklearn_importer` makes it; knows nothing of scikit-learn itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from device_agent.shared.protocol import model_info
from knnkit.data.dataset import Dataset, dataset
from knnkit.errors import DataError
from knnkit.model.build import BuiltModel, build_enrolled
from knnkit.model.reference.enrolment import Enrolment
from knnkit.model.reference.spec import KnnSpec

if TYPE_CHECKING:
    from knnkit.release.build import Built
    from knnkit.release.signing import Signer


@dataclass(frozen=True, repr=False)
class Imported:
    """A classifier from scikit-learn: what it is, and its training rows in model space."""

    spec: KnnSpec
    enrolment: Enrolment

    def __repr__(self) -> str:
        """Returns what a notebook shows: what it is, without its rows."""
        spec, held = self.spec, self.enrolment
        size = f"{len(held.codes)} rows x {len(held.feature_names)} features, {len(held.classes)} classes"
        return (
            f"<Imported {spec.name!r} from {held.source}: {size}, k = {spec.k}, {spec.metric}, weights {spec.weights}>"
        )

    def build(self, held_out: Dataset | None = None, *, margin: float = 1e-5, seed: int = 0) -> BuiltModel:
        """Returns the model file and its reference; `held_out` measures the acceptance rate.

        Raises:
            BuildError: the model cannot be built.
        """
        return build_enrolled(self.spec, self.enrolment, held_out, margin=margin, seed=seed)

    def build_release(
        self,
        out: str | Path,
        *,
        signing_key: str | Path | Signer,
        test: tuple[ArrayLike, ArrayLike] | Dataset | None = None,
        version: str = "1.0.0",
        sequence: int | None = None,
        device_class: str = "any",
        gates: model_info.Gates | None = None,
        seed: int = 0,
    ) -> Built:
        """Builds the classifier into a signed release, as `knnkit build` does, replacing the release in `out`.

        Args:
            out: the release directory.
            signing_key: the private key's file, or a signer.
            test: (n, n_features) raw rows and their n labels, held out; without them training rows stand in as golden
                rows, and no accuracy is claimed.
            version: for people.
            sequence: grows with every release; None takes the time of the build.
            device_class: the class of device that it is for.
            gates: what a device must reach; None asks for the same answers alone.
            seed: of the choice of golden rows, where there are more than enough.

        Raises:
            DataError: the test rows do not fit the classifier.
            BuildError: the model cannot be built, or `out` holds something else than a release.
            SigningKeyError: the key cannot be used.
            VerificationFailed: a device could not accept the release.
        """
        from knnkit.release import build, signing
        from knnkit.training import source

        if isinstance(test, tuple):
            test = dataset(*test, self.enrolment.feature_names, "test")
        order = build.Order(gates or model_info.Gates(), version, sequence, device_class=device_class, seed=seed)
        signer = signing.load_signer(Path(signing_key)) if isinstance(signing_key, str | Path) else signing_key
        return build.write_release(source.of_imported(self, test), order, signer, Path(out))

    def training_rows(self) -> Dataset:
        """Returns raw rows that are to the classifier what its training rows are; where a map loses something, nearly.

        Raises:
            DataError: a map cannot be undone in the range of float32.
        """
        rows, classes = self.enrolment.space.leave(self.enrolment.enrolled), self.enrolment.classes
        if not np.isfinite(rows).all():
            raise DataError(f"{self.enrolment.source}: no raw rows can be had from it", hint="give it test rows")
        return Dataset(
            rows, np.array(classes)[self.enrolment.codes], self.enrolment.feature_names, self.enrolment.source
        )

    def fitting(self, held_out: Dataset) -> Dataset:
        """Returns labelled rows with their labels as this classifier has them: `7` is "7" where its labels are text.

        Raises:
            DataError: the features are not the classifier's.
        """
        names = self.enrolment.feature_names
        if held_out.feature_names != names:
            raise DataError(
                f"{held_out.source}: {len(held_out.feature_names)} features ({_listed(held_out.feature_names)}), but "
                f"{self.enrolment.source} takes {len(names)} ({_listed(names)})"
            )
        known = {str(label): label for label in self.enrolment.classes}
        labels = [known.get(str(label), label) for label in held_out.labels.tolist()]
        return Dataset(held_out.rows, np.array(labels), names, held_out.source)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
