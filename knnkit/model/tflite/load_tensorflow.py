"""Imports TensorFlow without its messages on standard error.

Its C++ side writes about processors and CUDA to file descriptor 2 before any setting takes effect, so the descriptor is
redirected. If the import fails, the messages are printed after all, unless the user interrupted it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

from device_agent.shared.console import signals
from knnkit.errors import MissingDependency, extra


def load_tensorflow() -> None:
    """Imports TensorFlow, and lets it search for processors and GPUs, without its messages.

    Raises:
        ImportError: TensorFlow cannot be imported; its messages are then written to standard error.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # for later messages of the converter
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            with warnings.catch_warnings():  # its own imports warn about themselves
                warnings.simplefilter("ignore")
                import tensorflow

                tensorflow.config.list_physical_devices()
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt) and not signals.heard():
                said.seek(0)
                os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def needs_build_extra() -> Iterator[None]:
    """Within this context, a missing package raises an error that states how to install it.

    Raises:
        MissingDependency: a package is not installed; raised in place of ModuleNotFoundError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = {"sklearn": "scikit-learn"}.get(error.name or "", error.name)
        raise MissingDependency(f"building a model needs {package}", hint=extra("build")) from None


def load_interpreter() -> None:
    """Loads what `open_interpreter` needs, in 0.2 s, not 5 s: TensorFlow's modules without the package's `__init__`.

    Raises:
        ImportError: TensorFlow cannot be imported.
    """
    if (spec := importlib.util.find_spec("tensorflow")) is None:
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
    sys.modules["tensorflow"] = importlib.util.module_from_spec(spec)
    try:
        from tensorflow.lite.python import interpreter  # noqa: F401
    except Exception:  # a version whose interpreter needs the rest
        for name in [name for name in sys.modules if name.partition(".")[0] == "tensorflow"]:
            del sys.modules[name]
        load_tensorflow()


def open_interpreter(**model: Any) -> Any:
    """Returns TensorFlow's interpreter of a model (`model_path` or `model_content`); allocates no tensors."""
    from tensorflow.lite.python.interpreter import Interpreter, OpResolverType

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, but comes with TensorFlow
        # Without XNNPACK: the builtin kernels are an independent check, and print nothing.
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return Interpreter(**model, experimental_op_resolver_type=resolver)


def give_back() -> None:
    """Returns freed memory to the system; glibc would keep much of it for later use."""
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)


def tensorflow_version() -> str:
    """Returns the version of TensorFlow."""
    import tensorflow

    return str(tensorflow.__version__)
