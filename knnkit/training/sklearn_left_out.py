"""Parts of scikit-learn that cannot be imported, and why.

Errors give these reasons, and docs/scikit-learn.md lists them.
"""

from __future__ import annotations

_TARGETS = "it changes labels, not rows"
_SPARSE = "it reads documents or dictionaries; fit it apart, and give its numbers as rows"
_PREDICTS = "it is a model of its own; its outputs as features are not a map that a board can check"
_ITERATES = "it solves a problem for each row, and iterations differ from machine to machine"
_KERNEL = "its kernels and waves are not among the transforms of a table"
_TREE = "it needs its search tree or its clusters on the board"
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
    "RadiusNeighborsRegressor": "values are means of k targets; KNeighborsRegressor, or RadiusNeighborsClassifier",
    "KernelDensity": "every training row has a share in each answer",
    "NearestCentroid": "it has no neighbours; KNeighborsClassifier(1) of the centroids answers alike",
}
_RELATIVE = "its quotients of sums would be rounded, and equal distances would differ"
_BOOLEAN = "it compares truth values by counts that no model has; jaccard or hamming"
#: Metric -> the reason.
METRICS: dict[str, str] = {
    **dict.fromkeys(("braycurtis", "canberra"), _RELATIVE),
    **dict.fromkeys(("dice", "rogerstanimoto", "russellrao", "sokalmichener", "sokalsneath", "yule"), _BOOLEAN),
    "minkowski, p below 1 or above 16": "it is not a metric, or float64 loses distances that float32 rows have",
    "nan_euclidean": "rows are finite numbers everywhere after the table; SimpleImputer, or missing: in deploy.yaml",
    "precomputed": "distances to the training rows are not rows",
    "pyfunc": "a function cannot be sent to a board",
}
#: Weights -> the reason.
WEIGHTS: dict[str, str] = {
    "a function": "a function cannot be sent to a board; knnkit.kernels has functions with names"
}


def because(name: str, *lists: dict[str, str]) -> str:
    """Returns `: ` and the reason why a part cannot be imported; an empty text if no list has it."""
    return next((f": {each[name]}" for each in lists if name in each), "")
