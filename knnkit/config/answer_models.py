"""Types of deploy.yaml for answers: "unknown", label sets, fewer rows."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import AfterValidator, Field

from device_agent.shared.protocol.model_info import Keep
from knnkit.config.field_types import Example, Section, Words

#: Most rows of a kind that a device keeps.
MOST_KEPT = 10_000
Accepted = Annotated[float, Field(gt=0.0, lt=1.0)]


def _complete(shares: dict[str, float]) -> dict[str, float]:
    if "default" not in shares:
        raise ValueError("the other classes have no share: write one for `default`, too")
    return shares


Reject = Annotated[
    Annotated[Accepted, pydantic.Tag("<share>")]
    | Annotated[
        dict[str, Accepted],
        AfterValidator(_complete),
        Words("a label and its share ({fault: 0.999, default: 0.95})"),
        pydantic.Tag("<classes>"),
    ],
    pydantic.Discriminator(lambda value: "<classes>" if isinstance(value, dict) else "<share>"),
]


Coverages = Annotated[
    Annotated[Accepted, pydantic.Tag("<coverage>")] | Annotated[tuple[Accepted, ...], pydantic.Tag("<list>")],
    pydantic.Discriminator(lambda value: "<list>" if isinstance(value, tuple | list) else "<coverage>"),
]


class KeepConfig(Section):
    """Rows that a device keeps for people to label. They can be personal."""

    unknown: Annotated[int, Example("200")] = Field(default=0, ge=0, le=MOST_KEPT)
    """Most rows that were answered "unknown"; the newest stay."""
    uncertain: Annotated[int, Example("200")] = Field(default=0, ge=0, le=MOST_KEPT)
    """Most rows near a threshold of `reject`, or whose answer hung on one vote; the newest stay."""
    random: Annotated[int, Example("100")] = Field(default=0, ge=0, le=MOST_KEPT)
    """Size of a random sample of all rows."""

    @property
    def info(self) -> Keep | None:
        """The same for knn.json; None if no row is kept."""
        found = Keep(self.unknown, self.uncertain, self.random)
        return found if any(found.sizes.values()) else None


Kept = Literal["condensed", "edited", "prototypes"]


class ReduceConfig(Section):
    """Fewer training rows in the model."""

    how: Annotated[Kept, Example("condensed")]
    """condensed: rows that classify all others; edited: without rows whose neighbours contradict their label;
    prototypes: rows next to the centres of clusters."""
    max_loss: Annotated[float, Example("0.01")] = Field(default=0.01, ge=0.0, lt=1.0)
    """Largest loss of accuracy on the held-out rows; if more is lost, the build fails."""


Reduce = Annotated[
    Annotated[Kept, pydantic.Tag("<word>")] | Annotated[ReduceConfig, pydantic.Tag("<reduce>")],
    pydantic.Discriminator(lambda value: "<word>" if isinstance(value, str) else "<reduce>"),
]


class GoldenConfig(Section):
    """The rows that every device answers before it keeps the release."""

    rows: Annotated[int, Example("200")] = Field(default=1000, ge=10, le=20_000)
    """Most golden rows; fewer are checked sooner on a slow board."""
