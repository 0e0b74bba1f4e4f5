"""Types of deploy.yaml for answers: "unknown" and label sets."""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import AfterValidator, Field

from knnkit.config.field_types import Words

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
