"""The device side of knnkit.

Verifies a signed k-nearest-neighbours model, runs it, and proves that it answers as the host does. Needs the standard
library, NumPy, a TFLite runtime and cryptography; never imports knnkit.
"""

TYPE_CHECKING = False  # as type checkers know it: `typing` takes time at each start
if TYPE_CHECKING:
    from device_agent.inference.tflite_knn import TfliteKNN as TfliteKNN

__version__ = "0.1.0"
__all__ = ["TfliteKNN", "__version__"]


def __getattr__(name: str) -> object:
    # Imported at first use, so that the agent starts without numpy.
    if name == "TfliteKNN":
        from device_agent.inference.tflite_knn import TfliteKNN

        return TfliteKNN
    raise AttributeError(f"module 'device_agent' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
