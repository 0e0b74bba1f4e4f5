"""The contenders: how each one is prepared on disk, loaded, and asked for the k nearest neighbours.

Runs in a child process of the peers' environment. Each class imports the library that it needs itself, so that its
measured start includes nothing else. Every contender answers (n, features) float32 rows with (n, k) indices and
distances; TfliteKNN also computes labels and probabilities, its peers do not.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class Contender:
    """One way to find neighbours.

    Attributes:
        name: in tables.
        peer: whether TfliteKNN must be faster than this; the others are limits, shown for comparison.
        packages: distributions whose files, with those of their dependencies, make up the installed size.
    """

    name: ClassVar[str]
    peer: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, artefact: Path, threads: int) -> None:
        raise NotImplementedError

    @staticmethod
    def prepare(data: Path, artefact: Path, k: int) -> None:
        """Writes `artefact`, the file that the contender loads later, from a folder of `benchmarks.datasets`."""
        raise NotImplementedError

    @classmethod
    def tuned(cls, artefact: Path, threads: int, rows: Any) -> Contender:
        """Opens the contender. `rows` are (n, features) queries, for one that measures its searches first."""
        return cls(artefact, threads)

    @classmethod
    def first(cls, artefact: Path) -> Contender:
        """Opens the contender in a new process, with one thread and the searches that `tuned` has measured."""
        return cls(artefact, 1)

    def neighbors(self, rows: Any) -> tuple[Any, Any]:
        """Returns (n, k) indices and distances."""
        raise NotImplementedError


class Tflite(Contender):
    name = "TfliteKNN"
    peer = False
    packages: ClassVar[tuple[str, ...]] = ("device_agent", "numpy", "tflite-runtime", "cryptography")
    runtime: ClassVar[str] = "tflite_runtime"
    search: ClassVar[str | None] = None

    def __init__(self, artefact: Path, threads: int, search: Any = None) -> None:
        from device_agent.inference.tflite_knn import TfliteKNN

        self.model = TfliteKNN(artefact, num_threads=threads, runtime=self.runtime, search=search or self.search)

    @classmethod
    def tuned(cls, artefact: Path, threads: int, rows: Any) -> Tflite:
        """Opens the model with the searches that an activation measures and keeps (docs/decisions/146)."""
        usual = cls(artefact, threads)
        if cls.search is not None:
            return usual
        from device_agent.lifecycle.choose_search import measure
        from device_agent.shared.protocol import json_codec
        from device_agent.system.memory import SMALL

        large = artefact.stat().st_size > SMALL
        found = measure(usual.model, lambda way: cls(artefact, threads, way).model, rows, large=large)
        if threads == 1:
            cls._kept(artefact).write_bytes(json_codec.dump_file(found))
        return cls(artefact, threads, found)

    @classmethod
    def first(cls, artefact: Path) -> Tflite:
        from device_agent.shared.protocol import json_codec
        from device_agent.shared.protocol.documents import Searched

        kept = cls._kept(artefact)
        return cls(artefact, 1, json_codec.loads(Searched, kept.read_bytes()) if kept.exists() else None)

    @classmethod
    def _kept(cls, artefact: Path) -> Path:
        return artefact.with_name(f"searches.{cls.runtime}.json")

    @staticmethod
    def prepare(data: Path, artefact: Path, k: int) -> None:
        if not artefact.exists():
            raise FileNotFoundError(f"{artefact}: scripts/bench builds it first")

    def neighbors(self, rows: Any) -> tuple[Any, Any]:
        found = self.model.neighbors(rows)
        return found.indices, found.distances

    @property
    def delegate(self) -> str | None:
        return self.model.runtime.delegate


class Litert(Tflite):
    """The same model on the other runtime, which boards with Python 3.12 and later have."""

    name = "TfliteKNN, LiteRT"
    packages = ("device_agent", "numpy", "ai-edge-litert", "cryptography")
    runtime = "ai_edge_litert"


class Numpy(Tflite):
    """The same model's search in NumPy, which an activation may choose (docs/decisions/146)."""

    name = "TfliteKNN, NumPy"
    packages = ("device_agent", "numpy", "cryptography")
    runtime = search = "numpy"


class Groups(Numpy):
    """The same among groups of rows, in a model that has them (docs/decisions/200); measured by `growth` alone."""

    name = "TfliteKNN, groups"
    search = "groups"

    def __init__(self, artefact: Path, threads: int, search: Any = None) -> None:
        super().__init__(artefact, threads, search)
        if self.model.info.groups is None:
            raise LookupError("the model has no groups")


class Sklearn(Contender):
    packages = ("scikit-learn",)
    algorithm: ClassVar[str]

    def __init__(self, artefact: Path, threads: int) -> None:
        import joblib

        self.model = joblib.load(artefact)

    @classmethod
    def prepare(cls, data: Path, artefact: Path, k: int) -> None:  # type: ignore[override]
        import joblib
        import numpy as np
        from sklearn.neighbors import KNeighborsClassifier

        rows, labels = np.load(data / "rows.npy"), np.load(data / "labels.npy")
        joblib.dump(KNeighborsClassifier(k, algorithm=cls.algorithm).fit(rows, labels), artefact)

    def neighbors(self, rows: Any) -> tuple[Any, Any]:
        distances, indices = self.model.kneighbors(rows)
        return indices, distances


class SklearnBrute(Sklearn):
    name = "scikit-learn brute"
    algorithm = "brute"


class SklearnAuto(Sklearn):
    name = "scikit-learn auto"
    algorithm = "auto"


class SklearnIntelex(SklearnBrute):
    """The same with Intel's kernels, on processors that have them."""

    name = "scikit-learn-intelex"
    packages = ("scikit-learn-intelex",)

    @classmethod
    def prepare(cls, data: Path, artefact: Path, k: int) -> None:  # type: ignore[override]
        import joblib
        import numpy as np
        from sklearnex.neighbors import KNeighborsClassifier

        rows, labels = np.load(data / "rows.npy"), np.load(data / "labels.npy")
        joblib.dump(KNeighborsClassifier(k, algorithm="brute").fit(rows, labels), artefact)


class Onnx(Contender):
    packages = ("onnxruntime",)
    options: ClassVar[dict[str, str]]

    def __init__(self, artefact: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(artefact), options, providers=["CPUExecutionProvider"])
        self.outputs = ["index", "distance"]

    @classmethod
    def prepare(cls, data: Path, artefact: Path, k: int) -> None:  # type: ignore[override]
        import numpy as np
        from skl2onnx import to_onnx
        from sklearn.neighbors import NearestNeighbors

        rows = np.load(data / "rows.npy")
        model = NearestNeighbors(n_neighbors=k, radius=None, algorithm="brute").fit(rows)
        opsets = {"": 18, "ai.onnx.ml": 3, "com.microsoft": 1}
        graph = to_onnx(model, rows[:1], options={id(model): cls.options}, target_opset=opsets)
        artefact.write_bytes(graph.SerializeToString())

    def neighbors(self, rows: Any) -> tuple[Any, Any]:
        indices, distances = self.session.run(self.outputs, {"X": rows})
        return indices, distances


class OnnxScan(Onnx):
    name = "onnxruntime"
    options: ClassVar[dict[str, str]] = {}


class OnnxCdist(Onnx):
    name = "onnxruntime cdist"
    options: ClassVar[dict[str, str]] = {"optim": "cdist"}


class Faiss(Contender):
    name = "faiss flat"
    packages = ("faiss-cpu",)

    def __init__(self, artefact: Path, threads: int) -> None:
        import faiss

        faiss.omp_set_num_threads(threads)
        self.index = faiss.read_index(str(artefact))
        self.k = int(os.environ["BENCH_K"])

    @staticmethod
    def prepare(data: Path, artefact: Path, k: int) -> None:
        import faiss
        import numpy as np

        rows = np.load(data / "rows.npy")
        index = faiss.IndexFlatL2(rows.shape[1])
        index.add(rows)
        faiss.write_index(index, str(artefact))

    def neighbors(self, rows: Any) -> tuple[Any, Any]:
        distances, indices = self.index.search(rows, self.k)
        return indices, distances


class Usearch(Contender):
    name = "usearch exact"
    packages = ("usearch",)

    def __init__(self, artefact: Path, threads: int) -> None:
        import numpy as np

        self.rows, self.k, self.threads = np.load(artefact), int(os.environ["BENCH_K"]), threads

    @staticmethod
    def prepare(data: Path, artefact: Path, k: int) -> None:
        import usearch.index  # noqa: F401  it may not be installed

        Gemm.prepare(data, artefact, k)

    def neighbors(self, rows: Any) -> tuple[Any, Any]:
        from usearch.index import MetricKind, search

        found = search(self.rows, rows, self.k, MetricKind.L2sq, exact=True, threads=self.threads)
        return found.keys.reshape(len(rows), -1).astype("int64"), found.distances.reshape(len(rows), -1)


class NumKong(Contender):
    name = "NumKong"
    packages = ("numkong", "numpy")

    def __init__(self, artefact: Path, threads: int) -> None:
        import numpy as np

        self.rows, self.k, self.threads = np.load(artefact), int(os.environ["BENCH_K"]), threads

    @staticmethod
    def prepare(data: Path, artefact: Path, k: int) -> None:
        import numkong  # noqa: F401  it may not be installed

        Gemm.prepare(data, artefact, k)

    def neighbors(self, rows: Any) -> tuple[Any, Any]:
        import numkong
        import numpy as np

        distances = np.asarray(numkong.cdist(rows, self.rows, "sqeuclidean"))
        nearest = np.argpartition(distances, self.k - 1, axis=1)[:, : self.k]
        return nearest, np.take_along_axis(distances, nearest, axis=1)


class Graph(Contender):
    """A limit: the model's graph alone, without the Python around it."""

    name = "graph alone"
    peer = False

    def __init__(self, artefact: Path, threads: int) -> None:
        import numpy as np

        from device_agent.shared.protocol import constants

        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError:
            from ai_edge_litert.interpreter import Interpreter
        self.interpreter = Interpreter(str(artefact), num_threads=threads)
        self.interpreter.allocate_tensors()
        inputs = self.interpreter.get_input_details()[0]
        self.interpreter.set_tensor(inputs["index"], np.ones(inputs["shape"], np.float32))
        runner = self.interpreter.get_signature_runner(constants.SIGNATURE_BATCH)
        self.batch = int(runner.get_input_details()[constants.INPUT_ROWS]["shape"][0])
        runner(**{constants.INPUT_ROWS: np.load(artefact.parent / "queries.npy")[np.arange(self.batch) % 64]})
        self.subgraph = runner._subgraph_index
        self.run = self.interpreter._interpreter.Invoke

    prepare = Tflite.prepare

    def neighbors(self, rows: Any) -> tuple[Any, Any]:
        if len(rows) == 1:
            self.run(0)
        else:
            for _ in range(-(-len(rows) // self.batch)):
                self.run(self.subgraph)
        return None, None


class Gemm(Contender):
    """A limit: NumPy's matrix product of the queries and the training rows, and nothing after it."""

    name = "NumPy GEMM alone"
    peer = False

    def __init__(self, artefact: Path, threads: int) -> None:
        import numpy as np

        self.table = np.load(artefact).T

    @staticmethod
    def prepare(data: Path, artefact: Path, k: int) -> None:
        import shutil

        shutil.copyfile(data / "rows.npy", artefact)

    def neighbors(self, rows: Any) -> tuple[Any, Any]:
        rows @ self.table
        return None, None


#: Key (also the suffix of the artefact on disk) -> contender.
CONTENDERS: dict[str, type[Contender]] = {
    "tflite": Tflite,
    "litert": Litert,
    "numpy": Numpy,
    "groups": Groups,
    "brute.joblib": SklearnBrute,
    "auto.joblib": SklearnAuto,
    "intelex.joblib": SklearnIntelex,
    "scan.onnx": OnnxScan,
    "cdist.onnx": OnnxCdist,
    "faiss": Faiss,
    "usearch.npy": Usearch,
    "numkong.npy": NumKong,
    "graph": Graph,
    "gemm.npy": Gemm,
}


def artefact(key: str, data: Path) -> Path:
    """Returns the path of the contender's model of the data set in `data`."""
    return data / f"model.{'tflite' if key in ('graph', 'litert', 'numpy', 'groups') else key}"
