"""Finds the board's runtime and loads models into it.

Does not know what a model computes or whether it may run. Needs no NumPy until a model is loaded.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

from device_agent.shared.arguments import require, whole
from device_agent.shared.protocol import constants, model_info, versions
from device_agent.shared.protocol.errors import DeviceUnfit, ModelUnusable
from device_agent.shared.protocol.record import record

RUNTIMES = constants.RUNTIMES
#: Runtimes whose XNNPACK has hybrid products (float32 rows, int8 weights); the other has only builtin kernels.
_PACKS_QUANTIZED = ("ai_edge_litert",)
_MOST_THREADS = 1024
#: Raises or crashes where it is loaded after TensorFlow 2.21.
_FAILS_BESIDE_TENSORFLOW = "tflite_runtime"


@record
class Loader:
    """Loads one model file, any number of times."""

    path: str  # the model file
    interpreter_class: Any  # the runtime's Interpreter class; None for NumPy
    name: str  # import name of the runtime
    version: str  # version of the runtime
    threads: int  # threads of each interpreter

    @classmethod
    def find(cls, path: str, runtime: str | type, threads: int) -> Loader:
        """Returns the loader of a model; `runtime` is `auto`, one of `RUNTIMES`, or an Interpreter class.

        `auto` chooses TensorFlow's own Interpreter if TensorFlow is loaded, else the first TFLite runtime that can be
        loaded; NumPy only if no TFLite runtime is installed.

        Raises:
            DeviceUnfit: the runtime is unknown, not installed or damaged, or fails in a process that has loaded
                TensorFlow.
        """
        good = hasattr(runtime, "allocate_tensors") if isinstance(runtime, type) else isinstance(runtime, str)
        hint = f"an Interpreter class, or one of auto, {', '.join(RUNTIMES)}"
        require(good, "runtime", runtime, DeviceUnfit, hint)
        threads = whole(threads, "num_threads", DeviceUnfit, 1, _MOST_THREADS)
        tensorflow = sys.modules.get("tensorflow")
        if runtime == "auto" and tensorflow is not None:
            runtime = getattr(getattr(tensorflow, "lite", None), "Interpreter", runtime)
        if isinstance(runtime, type):
            name = runtime.__module__.split(".")[0]
            return cls(path, runtime, name, _version(sys.modules[name]), threads)
        if runtime == _FAILS_BESIDE_TENSORFLOW and tensorflow is not None:
            raise DeviceUnfit(f"{runtime} fails in a process that has loaded TensorFlow", hint="runtime='auto'")
        names = [name for name in RUNTIMES if tensorflow is None or name != _FAILS_BESIDE_TENSORFLOW]
        names = names if runtime == "auto" else [runtime]
        damaged = ""
        for name in names:
            if name not in RUNTIMES:
                raise DeviceUnfit(f"no such runtime: {name!r}", hint=f"choose one of: auto, {', '.join(RUNTIMES)}")
            if name == constants.NUMPY:
                if damaged:
                    break
                return cls(path, None, name, _version(importlib.import_module(name)), threads)
            try:
                module = importlib.import_module(f"{name}.interpreter")
            except ImportError as error:
                if not (isinstance(error, ModuleNotFoundError) and error.name == name):
                    damaged = damaged or f"; {name} cannot be loaded: {error}"
                continue
            return cls(path, module.Interpreter, name, _version(importlib.import_module(name)), threads)
        packages = " or ".join(RUNTIMES[name] for name in names if name != constants.NUMPY)
        named = "" if runtime == "auto" else f" --runtime {runtime}"
        raise DeviceUnfit(
            f"this Python ({sys.executable}) has no TFLite runtime: {packages}{damaged}",
            reason="no-runtime",
            hint=f"knnkit provision --target HOST{named} puts {'it' if named else 'one'} on the board",
        )

    @property
    def packs_quantized(self) -> bool:
        """Whether this runtime multiplies rows by int8 weights faster than by float32 weights, even packed ones."""
        return self.name in _PACKS_QUANTIZED

    def require_version(self, info: model_info.KnnInfo) -> None:
        """Checks that the runtime is new enough for the model.

        Raises:
            ModelUnusable: the runtime is too old.
        """
        have, need = versions.runtime(f"{self.name} {self.version}"), versions.parse(info.minimum_runtime)
        if have is None or need is None or have >= need:
            return
        raise ModelUnusable(
            f"the model needs TFLite runtime {info.minimum_runtime}, but this is {self.name} {self.version}",
            reason="runtime-too-old",
            hint="knnkit provision --target HOST installs a current runtime",
        )

    def load(self, packed: bool) -> Any:
        """Returns an interpreter of the model with allocated tensors; `packed`: whether XNNPACK may run the graphs."""
        interpreter = self.open(packed)
        interpreter.allocate_tensors()
        return interpreter

    def open(self, packed: bool) -> Any:
        """Returns an interpreter of the model.

        Args:
            packed: whether XNNPACK may run the graphs; it packs their weights, that is, copies them.

        Raises:
            ValueError, RuntimeError, OSError: the runtime cannot load the file.
        """
        options = {}
        if not packed:
            kinds = sys.modules[self.interpreter_class.__module__].OpResolverType
            options["experimental_op_resolver_type"] = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        with warnings.catch_warnings():  # TensorFlow's says that it will move to LiteRT
            warnings.simplefilter("ignore")
            return self.interpreter_class(model_path=self.path, num_threads=self.threads, **options)


def delegate(interpreter: Any) -> str | None:
    """Returns "XNNPACK" if this library of fast kernels runs at least a part of the model, else None."""
    details: list[dict[str, Any]] = getattr(interpreter, "_get_ops_details", list)()
    return "XNNPACK" if any(detail["op_name"] == "DELEGATE" for detail in details) else None


def _version(module: Any) -> str:
    return str(getattr(module, "__version__", "unknown"))
