"""Colours and shapes of classes, safe for colour-blind readers.

Colours after Okabe and Ito (2008), "Color Universal Design". Each class has a shape too: colour alone is not enough.
"""

from __future__ import annotations

#: Fill of class i is COLOURS[i % len]: blue, orange, green, vermilion, purple, sky, yellow.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#c9b800")
UNKNOWN_COLOUR = "#888888"

#: Matplotlib's marker of class i. Where colours repeat, from class 7 on, the shapes differ most.
MARKERS = ("o", "s", "^", "D", "v", "h", "p", "X", "P")
#: The same shapes as SVG paths around (0, 0), two units wide.
SHAPES = (
    "M-1,0a1,1 0 1,0 2,0a1,1 0 1,0 -2,0z",
    "M-.9,-.9h1.8v1.8h-1.8z",
    "M0,-1.1l1.1,2h-2.2z",
    "M0,-1.2l1.1,1.2l-1.1,1.2l-1.1,-1.2z",
    "M0,1.1l1.1,-2h-2.2z",
    "M0,-1.1l.95,.55v1.1l-.95,.55l-.95,-.55v-1.1z",
    "M0,-1.1l1.05,.76l-.4,1.24h-1.3l-.4,-1.24z",
    "M-1,-.6l.4,-.4l.6,.6l.6,-.6l.4,.4l-.6,.6l.6,.6l-.4,.4l-.6,-.6l-.6,.6l-.4,-.4l.6,-.6z",
    "M-.35,-1h.7v.65h.65v.7h-.65v.65h-.7v-.65h-.65v-.7h.65z",
)


def colour(index: int) -> str:
    """Returns the colour of class `index`; grey for "unknown" (a negative index)."""
    return UNKNOWN_COLOUR if index < 0 else COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    """Returns matplotlib's marker of class `index`."""
    return MARKERS[index % len(MARKERS)]
