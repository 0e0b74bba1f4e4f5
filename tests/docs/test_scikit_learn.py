"""docs/scikit-learn.md decides about each transformer, metric and neighbours' estimator of scikit-learn."""

from __future__ import annotations

import warnings

import pytest

from knnkit.training import sklearn_importer, sklearn_left_out, sklearn_metrics, sklearn_pipelines, sklearn_transforms


def decided(taken: set[str], left_out: dict[str, str], all_of_them: set[str]) -> None:
    assert taken & left_out.keys() == set(), "taken over and left out"
    assert all_of_them - taken - left_out.keys() == set(), "add it to sklearn_left_out.py, with the reason"
    assert [name for name, why in left_out.items() if len(why) < 15] == []


@pytest.mark.filterwarnings("ignore")
def test_every_transformer_and_estimator_is_decided() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sklearn.utils import all_estimators

        modules = {name: kind.__module__ for name, kind in all_estimators()}
        transformers = {name for name, _ in all_estimators(type_filter="transformer")}
    transformers = {name for name in transformers if not modules[name].startswith("sklearn.feature_selection")}
    taken = {*sklearn_transforms.CONVERSIONS, *sklearn_pipelines.WALKS}
    decided(taken, sklearn_left_out.TRANSFORMERS, transformers)
    around = {name for name, module in modules.items() if module.startswith("sklearn.neighbors")} - transformers
    decided(set(sklearn_importer.ESTIMATORS), sklearn_left_out.ESTIMATORS, around)


def test_every_metric_is_decided() -> None:
    from sklearn.neighbors import VALID_METRICS

    names = {name for names in VALID_METRICS.values() for name in names} - {"p", "minkowski"}
    decided({*sklearn_metrics.METRICS, *sklearn_metrics.MAPPED}, sklearn_left_out.METRICS, names)
