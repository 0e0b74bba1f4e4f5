"""Record of a model's windows in knn.json.

No I/O.
"""

from __future__ import annotations

from device_agent.shared.protocol.record import record


@record
class Window:
    """Windows of samples, which are a model's rows (`device_agent.shared.windows`).

    A line has the numbers `columns`, and `time` if it is not one of them. A step of the time above `gap` or below 0, a
    line that is bad or missing, and another value in the column `recording` break a window.
    """

    columns: tuple[str, ...]
    rows: int  # samples of a window
    hop: int  # samples from the beginning of one window to that of the next
    time: str | None = None
    gap: float | None = None
    recording: str | None = None
    #: As in `KnnInfo`.
    omitted = ("time", "gap", "recording")

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the numbers of a sample."""
        return self.columns if self.time is None or self.time in self.columns else (*self.columns, self.time)

    @property
    def marks(self) -> tuple[str, ...]:
        """Names of the columns that say in an answer which window it is for."""
        return ("first_line", "last_line", *(("first_time", "last_time") if self.time else ()))

    @property
    def size(self) -> int:
        """Numbers of a window, without times."""
        return self.rows * len(self.columns)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the numbers of a window, sample by sample: ax[0], ay[0], ax[1], ..."""
        return tuple(f"{name}[{row}]" for row in range(self.rows) for name in self.columns)
