"""Loads TensorFlow without what it says of processors, CUDA and its logging on standard error.

Its C++ side writes to file descriptor 2 before any setting takes effect, so the descriptor is what must be quiet. When
loading fails, what was said is shown after all, and not when it was interrupted. Called where somebody is watching;
importing TensorFlow elsewhere stays as it is.
"""

from __future__ import annotations

import os
import sys
import tempfile

from device_agent.shared.console import signals


def load_tensorflow() -> None:
    """Imports TensorFlow and lets it look for devices, in silence.

    Raises:
        ImportError: it cannot be imported; what it said is then on standard error.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # for what the converter says later
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
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


def tensorflow_version() -> str:
    """Returns the version of TensorFlow."""
    import tensorflow

    return str(tensorflow.__version__)
