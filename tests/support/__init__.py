"""Code that several test suites share."""

from pathlib import Path

#: The clone.
ROOT = Path(__file__).resolve().parents[2]
