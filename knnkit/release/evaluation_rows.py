"""Evaluation rows of a release, by number and name.

Names the held-out rows that the model answers wrongly, by class. The answers are those of the float64 reference;
devices are checked to give the same. Reads the release; changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.release import model_file
from device_agent.shared.release.row_origins import Origins, read
from device_agent.shared.safe_files import read_small
from knnkit.errors import VerificationFailed

#: Rows that one line of text names, at most.
_NAMED = 10
#: Neighbours of a row that are named, at most.
_VOTERS = 5


@dataclass(frozen=True)
class EvaluationRows:
    """Golden rows of a release: held-out rows; if the build held none out, training rows."""

    truth: tuple[str, ...]  # true labels; "" if not known
    answers: tuple[str, ...]  # the reference's, as labels
    origins: Origins = field(default_factory=Origins)  # numbers and ids in the user's data
    voters: tuple[str, ...] = ()  # nearest neighbours of each row, as text

    def listed(self, rows: Sequence[int], count: int | None = None) -> str:
        """Returns rows as text: `test.csv rows 3, 17 and 5 more`. `count`: number of all rows; None: `rows` has all."""
        count = len(rows) if count is None else count
        shown = [self.origins.name(row) for row in rows if 0 <= row < len(self.truth)][:_NAMED]
        if not shown:
            return constants.counted(count, "row")
        more = f" and {count - len(shown):,} more" if count > len(shown) else ""
        what = f"{self.origins.source} row" if self.origins.source else "evaluation row"
        return f"{what}{'s' if count > 1 else ''} {', '.join(shown)}{more}"

    def missed(self, label: str) -> list[tuple[str, list[int]]]:
        """Returns (wrong answer, rows with this answer) for rows of the class `label`; the commonest answer first."""
        found: dict[str, list[int]] = defaultdict(list)
        for row, (truth, answer) in enumerate(zip(self.truth, self.answers)):
            if truth == label != answer:
                found[answer].append(row)
        return sorted(found.items(), key=lambda entry: -len(entry[1]))


def read_evaluation_rows(directory: Path) -> EvaluationRows:
    """Returns the evaluation rows of a release.

    Raises:
        VerificationFailed: the release is damaged.
    """
    try:
        info = model_file.read_info(directory / constants.MODEL_FILE)
        training, own = read(directory / constants.MODEL_FILE)
        golden = Golden.from_bytes(read_small(directory / constants.GOLDEN_FILE, constants.MAX_GOLDEN))
    except (ModelUnusable, OSError) as error:
        raise VerificationFailed(f"{directory}: {error}", hint="knnkit build") from None
    names = (*map(str, info.classes), constants.UNKNOWN_LABEL)
    truth, answers = _named(golden.truth.tolist(), (*names[:-1], "")), _named(golden.label.tolist(), names)
    width = min(info.k, _VOTERS)
    more = f", {info.k - width:,} more" if info.k > width else ""
    pairs = zip(golden.classes[:, :width].tolist(), golden.indices[:, :width].tolist())
    voters = [", ".join(f"{names[c]} {training.name(i)}" for c, i in zip(*pair)) + more for pair in pairs]
    return EvaluationRows(truth, answers, own, tuple(voters))


def _named(codes: Iterable[int], names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of class indices; -1 (no class) gets the last of `names`, an unknown index stays a number."""
    return tuple(names[code] if -1 <= code < len(names) - 1 else str(code) for code in codes)
