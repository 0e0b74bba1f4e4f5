"""A classifier with its training rows in model space.

`knnkit.training.sklearn_importer` makes it from a scikit-learn estimator, `knnkit.TfKNN` from rows. Loads no
scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from knnkit.data.dataset import Dataset
from knnkit.errors import DataError
from knnkit.model.reference.enrolment import Enrolment
from knnkit.model.reference.spec import KnnSpec


@dataclass(frozen=True)
class Fitted:
    """A classifier: its specification, and its training rows in model space."""

    spec: KnnSpec
    enrolment: Enrolment

    def training_rows(self) -> Dataset:
        """Returns raw rows that map to the training rows; only approximately if a step cannot be inverted exactly.

        Raises:
            DataError: a row is out of the range of float32.
        """
        rows, classes = self.enrolment.space.leave(self.enrolment.enrolled), self.enrolment.classes
        if not np.isfinite(rows).all():
            raise DataError(f"{self.enrolment.source}: it has no raw rows in float32's range", hint="give it test rows")
        return Dataset(
            rows, np.array(classes)[self.enrolment.codes], self.enrolment.feature_names, self.enrolment.source
        )

    def fitting(self, held_out: Dataset) -> Dataset:
        """Returns labelled rows with labels of this classifier's type: `7` becomes "7" if its labels are text.

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
