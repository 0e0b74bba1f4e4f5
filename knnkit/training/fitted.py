"""A classifier with its training rows in model space.

`knnkit.training.sklearn_importer` makes it from a scikit-learn estimator, `knnkit.TfKNN` from rows. Loads no
scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from device_agent.shared.console.lists import listed
from device_agent.shared.protocol.table_info import Table
from device_agent.shared.queries import row_type
from knnkit.data.dataset import Dataset, spelt_as
from knnkit.errors import DataError
from knnkit.model.combinations import require_answerable
from knnkit.model.reference.enrolment import Enrolment
from knnkit.model.reference.spec import KnnSpec


@dataclass(frozen=True)
class Fitted:
    """A classifier: its parameters `spec`, and its training rows in model space (`enrolment`)."""

    spec: KnnSpec
    enrolment: Enrolment
    estimator: Any = field(default=None, compare=False, repr=False)  # scikit-learn's, if its answers can be compared
    table: Table | None = None  # of the raw columns, where the pipeline has nonlinear transformers
    labelled: bool = True  # False: only neighbours were asked for (NearestNeighbors)

    def __post_init__(self) -> None:
        """Raises BuildError if parameters cannot be combined; without a check, answers would ignore one of them."""
        require_answerable(self.spec, self.enrolment, has_input=False)

    def training_rows(self) -> Dataset:
        """Computes raw rows back from the training rows in model space; approximate if a step has no exact inverse.

        Raises:
            DataError: a row is out of the range of float32.
        """
        rows, classes = self.enrolment.space.leave(self.enrolment.enrolled), self.enrolment.classes
        if not np.isfinite(rows.astype(np.float32)).all():
            said = f"{self.enrolment.source}: its training rows, computed back to raw rows, leave the range of float32"
            raise DataError(said, hint="fit the estimator again on smaller numbers, such as rows / 1e9")
        return Dataset(
            rows,
            np.array(classes)[self.enrolment.codes],
            self.enrolment.feature_names,
            self.enrolment.source,
            targets=self.enrolment.targets,
            target_names=self.enrolment.target_names,
            target_classes=self.enrolment.target_classes,
        )

    def fitting(self, held_out: Dataset) -> Dataset:
        """Returns the rows `held_out` with this classifier's dtype and type of labels (7 becomes "7", or the reverse).

        Raises:
            DataError: the rows do not have the classifier's features, or lack labels or targets.
        """
        names = self.enrolment.feature_names
        if held_out.feature_names != names:
            raise DataError(
                f"{held_out.source}: {len(held_out.feature_names)} features ({listed(held_out.feature_names)}), but "
                f"{self.enrolment.source} takes {len(names)} ({listed(names)})"
            )
        if (held_out.targets is None) != (self.enrolment.targets is None):
            key = "label: [a, b]" if self.enrolment.target_classes else "target: y"
            hint = f"test: {{file: test.csv, {key}}}" if held_out.targets is None else "test: {file: test.csv}"
            raise DataError(f"{held_out.source}: classifiers need labels, regressions need targets", hint=hint)
        labels = spelt_as(held_out.labels, self.enrolment.classes)
        rows = held_out.rows.astype(row_type(self.enrolment.space.origin), copy=False)
        return replace(held_out, rows=rows, labels=labels)
