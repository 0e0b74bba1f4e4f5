"""The TFLite runtime that a board has, and models loaded into it.

Knows neither what a model computes nor whether it may run; needs no numpy until a model is loaded.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from device_agent.shared.protocol import constants, model_info, versions
from device_agent.shared.protocol.errors import DeviceUnfit, ModelUnusable
from device_agent.shared.protocol.record import record

RUNTIMES = constants.RUNTIMES
#: Those whose XNNPACK takes products of float32 rows with eight-bit weights; the other has plain kernels for them.
_PACKS_QUANTIZED = ("ai_edge_litert",)


@record
class Loader:
    """Loads one model file, as often as it is asked to.

    Attributes:
        path: the model.
        interpreter_class: of the runtime.
        name: import name of the runtime.
        version: of the runtime.
        threads: of each interpreter.
    """

    path: str
    interpreter_class: Any
    name: str
    version: str
    threads: int

    @classmethod
    def find(cls, path: str, runtime: str | type, threads: int) -> Loader:
        """Returns the loader of a model for `auto`, one of RUNTIMES, or an Interpreter class.

        Raises:
            DeviceUnfit: no such runtime is installed.
        """
        if isinstance(runtime, type):
            name = runtime.__module__.split(".")[0]
            return cls(path, runtime, name, _version(sys.modules[name]), threads)
        names = list(RUNTIMES) if runtime == "auto" else [runtime]
        for name in names:
            if name not in RUNTIMES:
                raise DeviceUnfit(f"no such runtime: {name!r}", hint=f"one of auto, {', '.join(RUNTIMES)}")
            try:
                module = importlib.import_module(f"{name}.interpreter")
            except ImportError:
                continue
            return cls(path, module.Interpreter, name, _version(importlib.import_module(name)), threads)
        packages = " or ".join(RUNTIMES[name] for name in names)
        named = "" if runtime == "auto" else f" --runtime {runtime}"
        raise DeviceUnfit(
            f"this Python ({sys.executable}) has no TFLite runtime: {packages}",
            reason="no-runtime",
            hint=f"knnkit provision --target HOST{named} puts {'it' if named else 'one'} on the board",
        )

    @property
    def packs_quantized(self) -> bool:
        """Whether products with eight-bit weights are the faster ones, packed or not."""
        return self.name in _PACKS_QUANTIZED

    def require_version(self, info: model_info.KnnInfo) -> None:
        """Checks that the runtime is new enough for the model.

        Raises:
            ModelUnusable: it is not.
        """
        have, need = versions.runtime(f"{self.name} {self.version}"), versions.parse(info.minimum_runtime)
        if have is None or need is None or have >= need:
            return
        raise ModelUnusable(
            f"the model needs TFLite runtime {info.minimum_runtime}, this is {self.name} {self.version}",
            reason="runtime-too-old",
            hint="knnkit provision --target HOST brings the runtime up to date",
        )

    def load(self, packed: bool) -> Any:
        """Returns an interpreter of the model with its tensors allocated.

        Args:
            packed: whether XNNPACK may take the graphs.

        Raises:
            ValueError, RuntimeError, OSError: the runtime cannot load the file.
        """
        options = {}
        if not packed:
            kinds = sys.modules[self.interpreter_class.__module__].OpResolverType
            options["experimental_op_resolver_type"] = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = self.interpreter_class(model_path=self.path, num_threads=self.threads, **options)
        interpreter.allocate_tensors()
        return interpreter


def delegate(interpreter: Any) -> str | None:
    """Returns XNNPACK where it runs at least a part of the model."""
    details: list[dict[str, Any]] = getattr(interpreter, "_get_ops_details", list)()
    return "XNNPACK" if any(detail["op_name"] == "DELEGATE" for detail in details) else None


def _version(module: Any) -> str:
    return str(getattr(module, "__version__", "unknown"))
