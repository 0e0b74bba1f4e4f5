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
    **dict.fromkeys(
        ("RadiusNeighborsClassifier", "RadiusNeighborsRegressor"),
        "as many neighbours as there are within the radius vote, and the graph has a fixed number; "
        "KNeighborsClassifier, with reject: for rows far from all others",
    ),
    "LocalOutlierFactor": "it compares densities; reject: answers unknown for rows far from all others",
    "KernelDensity": "every training row has a share in each answer",
    "NearestCentroid": "it has no neighbours; KNeighborsClassifier(1) of the centroids answers alike",
}
_NOT_LINEAR = "no linear map makes it a Euclidean or Manhattan distance, and the graph computes these"
_BOOLEAN = "it compares truth values by counts that are not a distance of coordinates"
#: Metric -> the reason.
METRICS: dict[str, str] = {
    **dict.fromkeys(("braycurtis", "canberra", "chebyshev", "infinity"), _NOT_LINEAR),
    **dict.fromkeys(
        ("dice", "jaccard", "rogerstanimoto", "russellrao", "sokalmichener", "sokalsneath", "yule"), _BOOLEAN
    ),
    "minkowski, p": "with p other than 1 and 2, " + _NOT_LINEAR,
    "haversine": "the runtimes have no arc sine; rows on the unit sphere (x, y, z) with euclidean have the same order",
    "nan_euclidean": "a graph has no missing numbers; SimpleImputer, or missing: in deploy.yaml",
    "precomputed": "distances to the training rows are not rows",
    "pyfunc": "a function cannot be sent to a board",
}
#: Weights -> the reason.
WEIGHTS: dict[str, str] = {"a function": "a function cannot be sent to a board"}


def because(name: str, *lists: dict[str, str]) -> str:
    """Returns `: ` and the reason why a part cannot be imported; an empty text if no list has it."""
    return next((f": {each[name]}" for each in lists if name in each), "")
