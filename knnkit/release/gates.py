"""Gates of a release, checked against what its model answers.

A gate on something that the model does not have is refused before the model is built.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from device_agent.shared.console.lists import listed
from device_agent.shared.protocol.model_info import DEFAULT, Gates
from device_agent.shared.protocol.record import replace
from knnkit.config.parse import GatesConfig
from knnkit.data.dataset import by_text, spelt
from knnkit.errors import BuildError
from knnkit.training.source import Material

_OF_NAMES = ("recall", "rmse", "max_error", "column_accuracy")
_OF_CLASSES = ("balanced_accuracy", "min_recall", "recall", "not_worse_than")


def of_config(asked: GatesConfig) -> Gates:
    """Converts gates of deploy.yaml to those of a release (None: no limit), without `agreement`: the host checks it."""
    absent = {key: None for key in _OF_NAMES if not getattr(asked, key)}
    return Gates(**{**asked.model_dump(exclude={"agreement"}), **absent})


def fitting(gates: Gates, made_from: Material) -> Gates:
    """Returns `gates`, after checking that the model of `made_from` has what they name.

    With several label columns, the result has the limit `accuracy` for each column that has no limit of its own. Labels
    in the result are spelt as those of the model.

    Raises:
        BuildError: a gate names a figure, class, column or target that the model does not have.
    """
    imported, training = made_from.imported, made_from.training
    found = training if imported is None else imported.enrolment
    names: Sequence[str] = found.target_names
    if found.targets is None:
        labels = training.labels.tolist() if imported is None else imported.enrolment.classes
        names = sorted({str(label) for label in labels})
        _refuse(gates, ("rmse", "max_error"), "is for a regression, and the model answers classes", "accuracy: 0.9")
        said = "is for several label columns, and the model has one"
        _refuse(gates, ("column_accuracy",), said, "accuracy: 0.9")
        spelling = by_text(names, names)
        recall = {spelling.get(spelt(name, spelling), name): limit for name, limit in (gates.recall or {}).items()}
        gates = replace(gates, recall=recall or None)
    elif found.target_classes:
        hint = f"column_accuracy: {{{names[0]}: 0.9}} under gates:, or accuracy: 0.8 for every column"
        _refuse(gates, _OF_CLASSES, "is for one label column, and the model has several", hint)
        _refuse(gates, ("rmse", "max_error"), "is for a regression, and the model answers labels", hint)
    else:
        keys = ("accuracy", "column_accuracy", *_OF_CLASSES)
        _refuse(gates, keys, "is for a classifier, and the model answers numbers", f"rmse: {{{names[0]}: 5.0}}")
    _require_names(gates, names)
    if not found.target_classes or gates.accuracy is None:
        return gates
    own = {DEFAULT: gates.accuracy, **(gates.column_accuracy or {})}
    return replace(gates, accuracy=None, column_accuracy=own)


def _refuse(gates: Gates, keys: Sequence[str], why: str, hint: str) -> None:
    for key in keys:
        if getattr(gates, key) is not None:
            raise BuildError(f"gates: {{{key}}} {why}", hint=hint)


def _require_names(gates: Gates, names: Sequence[str]) -> None:
    for key in _OF_NAMES:
        for name in sorted((getattr(gates, key) or {}).keys() - {DEFAULT, *names}):
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the model has {listed(names)}"
            raise BuildError(f"gates: {{{key}}} names {name!r}, which the model does not have", hint=hint)
