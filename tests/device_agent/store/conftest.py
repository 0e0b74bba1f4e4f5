"""What the tests of a device's trust share."""

from support.trusting import board, clock, newer, prepared

__all__ = ["board", "clock", "newer", "prepared"]
