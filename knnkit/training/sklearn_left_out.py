"""Parts of scikit-learn that cannot be imported, and why.

Errors give these reasons, and docs/scikit-learn.md lists them.
"""

from __future__ import annotations

_TARGETS = "it changes labels, not rows"
_SPARSE = "it reads documents or dictionaries; fit it first, and give knnkit the numbers that it returns"
_PREDICTS = "it is a model of its own, whose outputs a board cannot check"
_ITERATES = "it solves a problem for each row, and iterations differ from machine to machine"
_KERNEL = "knnkit has no transform for its kernels or waves"
_MEANS = "a regression answers the mean of k targets; use KNeighborsRegressor, or RadiusNeighborsClassifier"
_TREE = "it would need its search tree or its clusters on the board"
_NO_MAP = "it has no map for new rows"

#: Transformer -> the reason.
TRANSFORMERS: dict[str, str] = {
    **dict.fromkeys(("LabelBinarizer", "LabelEncoder", "MultiLabelBinarizer", "IsotonicRegression"), _TARGETS),
    **dict.fromkeys(("DictVectorizer", "FeatureHasher", "HashingVectorizer", "TfidfTransformer"), _SPARSE),
    **dict.fromkeys(("CountVectorizer", "TfidfVectorizer", "PatchExtractor"), _SPARSE),
    **dict.fromkeys(("StackingClassifier", "StackingRegressor", "VotingClassifier", "VotingRegressor"), _PREDICTS),
    **dict.fromkeys(("BernoulliRBM", "RandomTreesEmbedding", "TargetEncoder"), _PREDICTS),
    **dict.fromkeys(("DictionaryLearning", "LatentDirichletAllocation", "MiniBatchDictionaryLearning"), _ITERATES),
    **dict.fromkeys(("MiniBatchNMF", "MiniBatchSparsePCA", "NMF", "SparseCoder", "SparsePCA"), _ITERATES),
    **dict.fromkeys(("AdditiveChi2Sampler", "KernelCenterer", "KernelPCA", "Nystroem", "RBFSampler"), _KERNEL),
    **dict.fromkeys(("PolynomialCountSketch", "SkewedChi2Sampler"), _KERNEL),
    **dict.fromkeys(("Birch", "BisectingKMeans", "FeatureAgglomeration", "KMeans", "MiniBatchKMeans"), _TREE),
    **dict.fromkeys(("Isomap", "KNNImputer", "LocallyLinearEmbedding"), _TREE),
    **dict.fromkeys(("KNeighborsTransformer", "RadiusNeighborsTransformer"), _TREE),
    **dict.fromkeys(("TSNE", "MDS", "SpectralEmbedding"), _NO_MAP),
    **dict.fromkeys(("CCA", "PLSCanonical", "PLSRegression", "PLSSVD"), "it maps rows together with targets"),
    "IterativeImputer": _ITERATES,
    "SplineTransformer": "its splines are SciPy's, which a board does not have",
}
#: Estimator -> the reason.
ESTIMATORS: dict[str, str] = {
    "RadiusNeighborsRegressor": _MEANS,
    "KernelDensity": "every training row takes part in each answer, not only the nearest",
    "NearestCentroid": "it has no neighbours; fit KNeighborsClassifier(1) on its centroids instead",
}
_RELATIVE = "it divides sums, and rounding would make equal distances differ"
_BOOLEAN = "knnkit does not compute it; use jaccard or hamming"
#: Metric -> the reason.
METRICS: dict[str, str] = {
    **dict.fromkeys(("braycurtis", "canberra"), _RELATIVE),
    **dict.fromkeys(("dice", "rogerstanimoto", "russellrao", "sokalmichener", "sokalsneath", "yule"), _BOOLEAN),
    "minkowski, p below 1 or above 16": "p below 1 is not a metric; higher powers leave the range of float64",
    "nan_euclidean": "a model searches finite numbers; fill cells with SimpleImputer, or missing: in deploy.yaml",
    "precomputed": "a board gets rows, not their distances to the training rows",
    "pyfunc": "a function cannot be sent to a board",
}
#: Weights -> the reason.
WEIGHTS: dict[str, str] = {
    "a function": "a function cannot be sent to a board; use a kernel of knnkit.kernels, which has a name"
}


def because(name: str, *lists: dict[str, str]) -> str:
    """Returns a colon and the reason in `lists` (part -> reason) why `name` cannot be imported; "" if there is none."""
    return next((f": {each[name]}" for each in lists if name in each), "")
