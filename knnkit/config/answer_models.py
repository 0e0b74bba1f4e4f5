"""Types of deploy.yaml for answers, gates and taught rows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field

from device_agent.shared.protocol.model_info import DEFAULT, Enrol, Keep
from knnkit.config.field_types import Example, Section, Words

#: Most rows of a kind that a device keeps.
MOST_KEPT = 10_000
Accepted = Annotated[float, Field(gt=0.0, lt=1.0), Example("0.99")]
Least = Annotated[float, Field(ge=0.0, le=1.0), Example("0.9")]


def _complete(shares: dict[str, float]) -> dict[str, float]:
    if "default" not in shares:
        raise ValueError("the other classes have no share: add `default`, the share for all of them")
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


Factor = Annotated[float, Field(gt=0.0, allow_inf_nan=False), Example("5")]
ClassWeight = Annotated[
    Annotated[Literal["balanced"], pydantic.Tag("<balanced>")]
    | Annotated[dict[str, Factor], Words("a label and its factor ({fault: 5})"), pydantic.Tag("<factors>")],
    pydantic.Discriminator(lambda value: "<factors>" if isinstance(value, dict) else "<balanced>"),
]


Coverages = Annotated[
    Annotated[Accepted, pydantic.Tag("<coverage>")] | Annotated[tuple[Accepted, ...], pydantic.Tag("<list>")],
    pydantic.Discriminator(lambda value: "<list>" if isinstance(value, tuple | list) else "<coverage>"),
]


class KeepConfig(Section):
    """Rows that a device keeps for people to label. They may contain personal data."""

    unknown: Annotated[int, Example("200")] = Field(default=0, ge=0, le=MOST_KEPT)
    """Number of rows with the answer "unknown" to keep; the newest replace the oldest."""
    uncertain: Annotated[int, Example("200")] = Field(default=0, ge=0, le=MOST_KEPT)
    """Number of rows to keep that were near a threshold of `reject`, or decided by one vote; the newest stay."""
    random: Annotated[int, Example("100")] = Field(default=0, ge=0, le=MOST_KEPT)
    """Number of rows to keep as a random sample of all rows."""

    @property
    def info(self) -> Keep | None:
        """The value of `keep` in knn.json, the model's metadata; None if no row is kept."""
        found = Keep(self.unknown, self.uncertain, self.random)
        return found if any(found.sizes.values()) else None


Kept = Literal["condensed", "edited", "prototypes"]


class ReduceConfig(Section):
    """How a build chooses fewer training rows for the model."""

    how: Annotated[Kept, Example("condensed")]
    """condensed: rows that classify all others; edited: without rows whose neighbours contradict their label;
    prototypes: rows next to the centres of clusters."""
    max_loss: Annotated[float, Example("0.01")] = Field(default=0.01, ge=0.0, lt=1.0)
    """Largest loss of accuracy on the held-out rows; if more is lost, the build fails."""


Reduce = Annotated[
    Annotated[Kept, pydantic.Tag("<word>")] | Annotated[ReduceConfig, pydantic.Tag("<reduce>")],
    pydantic.Discriminator(lambda value: "<word>" if isinstance(value, str) else "<reduce>"),
]


class EnrolConfig(Section):
    """Which rows people may teach a device (`device_agent enrol`)."""

    rows: Annotated[int, Example("500")] = Field(ge=1, le=100_000)
    """Largest number of taught rows; a device with that many refuses more until some are forgotten."""
    per_label: Annotated[int | None, Example("100")] = Field(default=None, ge=1)
    """Largest number of taught rows with the same label; default: `rows`."""
    new_labels: bool = True
    """Whether taught rows may have labels that the model does not have."""
    may_override: bool = False
    """Whether a taught row may change the answer to a golden row; if not, such a row is refused."""
    drop: bool = False
    """Whether the device ignores taught rows after it gets another release."""

    @property
    def info(self) -> Enrol:
        """The value of `enrol` in knn.json, the model's metadata."""
        return Enrol(**self.model_dump())


class GoldenConfig(Section):
    """The rows that every device answers before it keeps the release."""

    rows: Annotated[int, Example("200")] = Field(default=1000, ge=10, le=20_000)
    """Largest number of golden rows; with `input` at most 200. A slow board checks fewer rows sooner."""


def _for_all(value: Any) -> Any:
    return {DEFAULT: value} if isinstance(value, int | float) and not isinstance(value, bool) else value


Limits = Annotated[
    dict[str, Annotated[float, Field(ge=0.0, allow_inf_nan=False), Example("5.0")]],
    BeforeValidator(_for_all),
    Words("a limit for all targets, or for some ({east: 0.5, default: 10.0})"),
    Example("5.0"),
]


class GatesConfig(Section):
    """Limits that every device must meet before it may keep the release."""

    accuracy: Annotated[float | None, Example("0.9")] = Field(default=None, ge=0.0, le=1.0)
    """Lowest allowed accuracy on the held-out rows, from 0 to 1, of every label column; default: no gate."""
    column_accuracy: Annotated[
        dict[str, Least], Words("a label column and its least accuracy ({species: 0.9})"), Example("{species: 0.9}")
    ] = Field(default={})
    """With several label columns: lowest allowed accuracy by column; replaces `accuracy` for these columns."""
    balanced_accuracy: Annotated[float | None, Example("0.85")] = Field(default=None, ge=0.0, le=1.0)
    """Lowest allowed mean recall of the classes, from 0 to 1; default: no gate."""
    min_recall: Annotated[float | None, Example("0.8")] = Field(default=None, ge=0.0, le=1.0)
    """Lowest allowed recall of every class, from 0 to 1; default: no gate."""
    recall: Annotated[dict[str, Least], Words("a label and its least recall ({fall: 0.9})"), Example("{fall: 0.9}")] = (
        Field(default={})
    )
    """Lowest allowed recall by label; replaces `min_recall` for these classes."""
    not_worse_than: Annotated[Literal["current"] | None, Example("current")] = None
    """current: each class must have at least the recall that the device's current release has on the same rows."""
    by: Annotated[float, Example("0.01")] = Field(default=0.0, ge=0.0, lt=1.0)
    """How much lower than the current recall each new recall may be, with `not_worse_than`."""
    agreement: Annotated[float | None, Example("0.99")] = Field(default=None, ge=0.0, le=1.0)
    """For an estimator from `skops`: lowest allowed share of test rows with the same answer from scikit-learn and the
    model. It is measured when the model is built."""
    rmse: Limits = Field(default={})
    """For a regression: highest allowed root mean square error of every target; or {target: limit}, with `default`."""
    max_error: Limits = Field(default={})
    """For a regression: highest allowed error of any evaluation row, for every target; or {target: limit}."""
    latency_ms: Annotated[float | None, Example("5.0")] = Field(default=None, gt=0.0)
    """Highest allowed median time for one row, in milliseconds; default: no gate."""
    margin: Annotated[float, Example("1e-5")] = Field(default=1.0e-5, gt=0.0, lt=0.1)
    """Neighbours whose distances differ by less than this share of the data's scale may swap on other processors."""
