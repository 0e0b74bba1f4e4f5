"""The device side of knnkit: verifies a signed k-nearest-neighbours model, runs it, and proves that it answers as the
host does. Needs the standard library, numpy, a TFLite runtime and cryptography; never imports knnkit."""

__version__ = "0.1.0"
