"""API for notebooks: TfKNN, and import from scikit-learn.

    from knnkit import TfKNN
    model = TfKNN(rows, k=3, labels=labels)
    model.predict(queries)
    model.export("knn.tflite")        # device_agent.TfliteKNN opens it

TfKNN answers with the same TensorFlow graph as the model file. If float32 rounding leaves an answer uncertain, float64
code computes it, as on a device. TensorFlow is loaded at the first answer or build.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from device_agent.shared.arguments import flag, is_number, path_text, require, texts, whole
from device_agent.shared.console.streams import quiet
from device_agent.shared.label_columns import Voter, labels_of
from device_agent.shared.protocol import constants, model_info
from device_agent.shared.queries import Neighbors, accuracy, answers_by_name, in_doubt
from device_agent.shared.regression import as_column, r_squared
from device_agent.shared.safe_files import whole_file
from knnkit.data.dataset import Dataset
from knnkit.errors import BuildError, DataError, UsageError
from knnkit.model.build import Options, build_enrolled, make_module, make_reference
from knnkit.model.built import BuiltModel
from knnkit.model.reference.enrolment import enrol
from knnkit.model.reference.spec import KnnSpec
from knnkit.model.scaling import fit_scaler
from knnkit.model.selfcheck import decide
from knnkit.release import build, signing
from knnkit.training import frames, source
from knnkit.training.fitted import Fitted
from knnkit.training.raw_cells import features_of, labelled_rows
from knnkit.training.sklearn_importer import import_estimator, load_skops

if TYPE_CHECKING:
    from knnkit.model.graph.tfknn import KnnModule
    from knnkit.model.reference.classifier import Reference
    from knnkit.release.build import Built
    from knnkit.release.signing import Signer


class TfKNN:
    """An exact k-nearest-neighbours classifier over training rows, in TensorFlow.

    Args:
        rows: (n_train, n_features) finite numbers: an array, nested lists or a data frame.
        k: neighbours that vote, at most n_train.
        labels: (n_train,) integers or text; or (n_train, t): the neighbours vote on each column separately. Without
            labels there are neighbours but no classes; an exported model then has the one class 0.
        targets: (n_train,) or (n_train, t) numbers, in place of labels: the model is a regression, and predicts the
            mean of the neighbours' targets. A named series, or a frame, gives the targets their names.
        metric: euclidean, sqeuclidean, manhattan, cosine, chebyshev, minkowski, jaccard or haversine.
        weights: uniform; distance (votes of 1 / distance; an exact match takes all votes); or the name of a kernel.
        scale: none, standard, minmax or robust; fitted on the rows and built into the model, which takes raw rows.
        reject: share of rows like the training rows to accept, or a dict label -> share, which may have the key
            `default` for other labels; None accepts all rows.
        name: name of the model: letters, digits, `.`, `_`, `-`.
        feature_names: names of the columns; by default those of a data frame.
        data: for a data frame with missing cells or text: the keys `missing`, `categories`, `unknown_category`, `drop`
            and `features` of deploy.yaml. With any frame, `labels` may be the name of a column, and `targets` the name
            or a list of names of columns.
        p, bandwidth, radius, outlier_label, class_weight: as the keys of the same names in deploy.yaml.

    Raises:
        DataError: the rows cannot be used, or the labels do not fit them.
        BuildError: k, metric, weights, scale, reject or name cannot be used.
    """

    fitted: Fitted

    def __init__(
        self,
        rows: ArrayLike,
        k: int = 3,
        *,
        labels: ArrayLike | None = None,
        targets: ArrayLike | None = None,
        metric: constants.Metric = "euclidean",
        weights: constants.Weights = "uniform",
        scale: constants.Scale = "none",
        reject: float | Mapping[str, float] | None = None,
        name: str = "model",
        feature_names: Sequence[str] | None = None,
        data: Mapping[str, Any] | None = None,
        p: float | None = None,
        bandwidth: float | None = None,
        radius: float | None = None,
        outlier_label: int | str | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
    ) -> None:
        own: dict[str, Any] = {"p": p, "bandwidth": bandwidth, "radius": radius, "class_weight": class_weight}
        own["outlier_label"] = outlier_label.item() if isinstance(outlier_label, np.generic) else outlier_label
        spec = KnnSpec(name, whole(k, "k", BuildError), metric, weights, scale, reject, **own)
        names = texts(feature_names, "feature_names", DataError)
        training, table = frames.read(rows, labels, targets, data, names)
        if spec.k > (count := len(training.rows)):
            raise BuildError(f"k is {k}, but there are {count} training rows", hint=f"k={count}, or less")
        held = enrol(training, fit_scaler(training.rows, scale), metric, spec.p, spec.outlier_label)
        self.fitted = Fitted(spec, held, table=table, labelled=labels is not None or targets is not None)

    @classmethod
    def of(cls, fitted: Fitted) -> TfKNN:
        """Returns a TfKNN for an imported estimator; `fitted` has training rows as the estimator transforms them."""
        model = cls.__new__(cls)
        model.fitted = fitted
        return model

    def __repr__(self) -> str:
        """Returns the text that a notebook shows: name, source, size, classes or targets, k, metric and weights."""
        spec, held = self.fitted.spec, self.fitted.enrolment
        what = constants.counted(len(held.classes), "class", "classes") if self.fitted.labelled else "no labels"
        if held.targets is not None:
            what = f"{'labels' if held.target_classes else 'targets'} {', '.join(held.target_names)}"
        size = f"{constants.counted(len(held), 'row')} x {constants.counted(self.n_features_in_, 'feature')}, {what}"
        return f"<TfKNN {spec.name!r} from {held.source}: {size}, k = {spec.k}, {spec.metric}, weights {spec.weights}>"

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state to pickle, without the TensorFlow graph, which cannot be pickled and is built again."""
        return {"fitted": self.fitted}

    @property
    def classes_(self) -> Any:
        """The (n_classes,) labels in the order of `predict_proba`'s columns; a list of these for several label columns.

        Raises:
            BuildError: there are no labels.
        """
        if columns := self.fitted.enrolment.target_classes:
            return [np.array(labels) for labels in columns]
        if not self.fitted.labelled or self.fitted.enrolment.targets is not None:
            raise BuildError("this TfKNN has no labels", hint="TfKNN(rows, k, labels=labels)")
        return np.array(self.fitted.enrolment.classes)

    @property
    def n_features_in_(self) -> int:
        """Number of features of a row."""
        return len(self.fitted.enrolment.feature_names)

    def neighbors(self, queries: ArrayLike) -> Neighbors:
        """Returns the k nearest training rows of each of the (n, n_features) raw `queries`.

        Raises:
            DataError: wrong columns, or a value that is not finite.
        """
        found = self._answer(queries)
        return Neighbors(found[constants.OUTPUT_INDICES], found[constants.OUTPUT_DISTANCES])

    def kneighbors(
        self, queries: ArrayLike | None = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]] | NDArray[np.int32]:
        """Returns (distances, indices) of the nearest training rows, (n, n_neighbors) each, as scikit-learn does.

        Args:
            queries: (n, n_features) raw rows; None: the training rows, none of which is its own neighbour.
            n_neighbors: at most k; default k.
            return_distance: whether to return distances, too.

        Raises:
            DataError: the rows are invalid, or n_neighbors is not between 1 and k.
        """
        k, count = self.fitted.spec.k, len(self.fitted.enrolment)
        wanted = k if n_neighbors is None else whole(n_neighbors, "n_neighbors", DataError)
        if not 1 <= wanted <= k:
            hint = f"TfKNN(rows, k={wanted})" if wanted > k else "n_neighbors=1"
            raise DataError(f"n_neighbors is {wanted}, but this TfKNN looks for {k}", hint=hint)
        if queries is not None:
            indices, distances = self.neighbors(queries)
        elif k < count:
            found = self._reference.leave_one_out(np.arange(count))
            indices, distances = found.indices[:, :k], found.distances[:, :k].astype(np.float32)
        else:
            raise DataError(f"k is {k}, but each training row has only {count - 1} other rows", hint="a smaller k")
        indices, distances = indices[:, :wanted], distances[:, :wanted]
        return (distances, indices) if flag(return_distance, "return_distance", DataError) else indices

    def predict(self, queries: ArrayLike) -> NDArray[Any]:
        """Returns (n,) labels of the training data's type, or (n, t) for t label columns; rejected rows are "unknown".

        A regression returns (n,) or (n, t) float64 values, NaN for rejected rows.

        Raises:
            DataError: wrong columns, or a value that is not finite.
            BuildError: there are no labels.
        """
        if self.fitted.enrolment.targets is not None:
            answers, raw = SimpleNamespace(**self._answer(queries)), features_of(self.fitted, queries).rows
            values, columns = self._reference.settled(answers, raw), self.fitted.enrolment.target_classes
            return np.array(labels_of(columns, values), object).reshape(values.shape) if columns else as_column(values)
        classes = self.classes_
        label = self._answer(queries)[constants.OUTPUT_LABEL]
        if self.fitted.spec.reject is not None or constants.UNKNOWN in label:
            classes = np.array([*classes.tolist(), constants.UNKNOWN_LABEL], dtype=object)
        return np.asarray(classes[label])

    def predict_proba(self, queries: ArrayLike) -> Any:
        """Returns (n, n_classes) float32: shares of votes, in the order of `classes_`; t arrays for t label columns."""
        self.classes_  # noqa: B018 (raises if there are none)
        voter = self._reference.regressor
        if isinstance(voter, Voter):
            return [part.astype(np.float32) for part in voter.shares(SimpleNamespace(**self._answer(queries)))]
        return self._answer(queries)[constants.OUTPUT_PROBABILITIES]

    def score(self, queries: ArrayLike, labels: ArrayLike) -> float:
        """Returns the share of raw `queries` with the right labels (in every label column); for a regression, R².

        Several columns of labels or targets in a frame are matched by name.
        """
        held = self.fitted.enrolment
        truth = answers_by_name(labels, held.target_names, DataError)
        by_label = held.targets is None or held.target_classes
        return (accuracy if by_label else r_squared)(self.predict(queries), truth, DataError)

    @cached_property
    def _reference(self) -> Reference:
        return make_reference(self.fitted.spec, self.fitted.enrolment)

    @cached_property
    def _module(self) -> KnnModule:
        return make_module(self.fitted.enrolment, self._reference)

    @np.errstate(over="ignore")
    def _answer(self, queries: ArrayLike) -> dict[str, NDArray[Any]]:
        """Returns output name -> array: the graph's answers, or float64 answers if rounding leaves these uncertain."""
        raw = features_of(self.fitted, queries).rows
        found = self._module.run(self.fitted.enrolment.space.narrow(raw))
        decide(found, self._reference, raw)
        indices, distances = found[constants.OUTPUT_INDICES], found[constants.OUTPUT_DISTANCES]
        close = found[constants.OUTPUT_CERTAIN] & in_doubt(distances, self._module.near)
        indices[close], distances[close] = self._reference.order(raw[close], indices[close])
        return found | {constants.OUTPUT_DISTANCES: np.minimum(distances, np.finfo(np.float32).max)}

    def build(self, held_out: Dataset | None = None, *, margin: float = 1e-5, seed: int = 0) -> BuiltModel:
        """Builds the model file, without a release; measures how many of the rows `held_out`, if any, `reject` accepts.

        Neighbours whose distances differ by less than the share `margin` of the distance are near-tied. `seed` is the
        seed of the build's random choices.

        Raises:
            BuildError: the model cannot be built.
            MissingDependency: a package of `knnkit[build]` is not installed.
        """
        require(is_number(margin) and 0.0 < margin < 0.1, "margin", margin, BuildError, "from 0 to 0.1: margin=1e-5")
        require(isinstance(held_out, Dataset | None), "held_out", held_out, DataError, "a knnkit.data.dataset.Dataset")
        options = Options(float(margin), whole(seed, "seed", BuildError, 0, 2**32 - 1), table=self.fitted.table)
        with quiet():
            return build_enrolled(self.fitted.spec, self.fitted.enrolment, held_out, options)

    def export(self, path: str | Path) -> Path:
        """Writes the complete model file, which `device_agent.TfliteKNN` opens, and returns its path.

        An existing file is replaced by one rename: a TfliteKNN that has the file open keeps its old content.

        Raises:
            UsageError: the directory does not exist.
            BuildError: the model cannot be built.
            MissingDependency: a package of `knnkit[build]` is not installed.
        """
        path = Path(path_text(path, "path", UsageError))
        if not path.parent.is_dir():
            raise UsageError(f"{path.parent} is not a directory", hint=f"mkdir -p {shlex.quote(str(path.parent))}")
        require(not path.is_dir(), "path", str(path), UsageError, f"a file, not a directory: {path / 'knn.tflite'}")
        with whole_file(path) as file:
            file.writelines(self.build().parts())
        return path

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
        """Builds a signed release of the classifier, as `knnkit build` does, replacing a release in `out`.

        Args:
            out: the release directory.
            signing_key: path of the private key, or a signer.
            test: (n, n_features) raw held-out rows and their n labels; without them, training rows become the golden
                rows, and no accuracy is claimed.
            version: version of the release, for people.
            sequence: number that grows with every release; None: the time of the build.
            device_class: the class of devices that the release is for.
            gates: limits that a device must meet; None: only that its answers are the reference's.
            seed: seed of the random choice of golden rows, if there are more rows than needed.

        Raises:
            DataError: the test rows are invalid for the classifier.
            BuildError: the model cannot be built, or `out` holds other files than a release.
            SigningKeyError: the key cannot be used.
            VerificationFailed: a device could not accept the release.
        """
        held_out = labelled_rows(self.fitted, test)
        limits = model_info.Gates() if gates is None else gates
        options = build.ReleaseOptions(limits, version, sequence, device_class=device_class, seed=seed)
        folder, signer = Path(path_text(out, "out", UsageError)), signing.signer_of(signing_key)
        return build.write_release(source.of_imported(self.fitted, held_out), options, signer, folder)


def from_sklearn(
    estimator: Any,
    *,
    name: str = "model",
    feature_names: Sequence[str] | None = None,
    reject: float | Mapping[str, float] | None = None,
    source: str | None = None,
) -> TfKNN:
    """Imports a fitted nearest-neighbour estimator of scikit-learn, or a Pipeline that ends in one.

    From a search such as GridSearchCV, it imports the best estimator. docs/scikit-learn.md lists what can be imported.

    Args:
        estimator: the fitted estimator.
        name: name of the model.
        feature_names: names of the raw columns; by default those that the estimator was fitted with.
        reject: share of rows like the training rows to accept, or a dict label -> share, which may have the key
            `default` for other labels; None accepts all rows.
        source: name of the estimator in messages; default: its type.

    Raises:
        BuildError: a part of the estimator is not supported; the message names it, the hint says what to do instead.
    """
    require(source is None or isinstance(source, str), "source", source, BuildError, "text: source='my estimator'")
    names = texts(feature_names, "feature_names", DataError)
    return TfKNN.of(import_estimator(estimator, name=name, feature_names=names, reject=reject, source=source))


def from_skops(path: str | Path, **options: Any) -> TfKNN:
    """Imports the estimator from a file in the skops format; `options` are the arguments of `from_sklearn`.

    Raises:
        BuildError: the file cannot be read, holds types that skops does not trust, or its estimator is not supported.
        MissingDependency: skops is not installed.
    """
    path = path_text(path, "path", BuildError)
    return from_sklearn(load_skops(path), **{"source": path, **options})
