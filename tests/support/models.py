"""Builds the model of some training rows, without a release."""

from __future__ import annotations

from knnkit.data.dataset import Dataset
from knnkit.model.build import Options, build_enrolled, origins_of
from knnkit.model.built import BuiltModel
from knnkit.model.reference.spec import KnnSpec
from knnkit.training.source import Material


def build_model(spec: KnnSpec, training: Dataset, held_out: Dataset | None = None) -> BuiltModel:
    """Builds `spec` over the rows of `training`, as `knnkit build` does before it makes golden rows."""
    enrolment = Material(spec, training, held_out).enrol(spec.scale, spec.metric)
    return build_enrolled(spec, enrolment, held_out, Options(training=origins_of(training)))
