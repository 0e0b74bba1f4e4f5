"""TensorFlow is in this process, the device in one of its own."""

from support.tensorflow_process import device

__all__ = ["device"]
