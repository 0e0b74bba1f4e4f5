"""Checks the rows that this device computes from raw inputs.

Runs the stages on the golden inputs and searches the neighbours of the resulting rows. Compares rows and answers with
the host's (`device_agent.shared.golden.embeddings`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from device_agent.shared.golden import embeddings, error_gates, judge
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import Gates, KnnInfo
from device_agent.shared.protocol.record import record, replace
from device_agent.shared.protocol.reports import EmbeddingCheck
from device_agent.shared.queries import narrow, origin_of
from device_agent.shared.raw_rows import own_golden

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from device_agent.inference.tflite_knn import TfliteKNN
    from device_agent.shared.golden.golden_set import Golden


@record
class OwnRows:
    """Result of `check_own_rows`."""

    check: EmbeddingCheck  # compares the rows with the host's
    verdict: judge.Verdict  # of the golden check, with the accuracy of the answers `label`
    label: NDArray[np.int32]  # (n,) class indices that the device answers to these rows


def check_own_rows(model: TfliteKNN, info: KnnInfo, golden: Golden, gates: Gates, found: judge.Verdict) -> OwnRows:
    """Compares the rows that this device computes from the golden inputs with the host's rows.

    `info` is knn.json; without its `evaluation`, all golden rows count alike. `found` is the verdict on this device's
    answers to the host's rows. The result has this verdict with the accuracy on this device's own rows, and with the
    gates that these rows miss.

    Raises:
        ModelUnusable: an input cannot be read, or a stage fails.
    """
    rows = own_golden(golden, info, model.chain).rows
    answers, origin = model.classify(rows), origin_of(model.info.origin)
    own, host, exact_knn = narrow(rows, origin), narrow(golden.rows, origin), model.get_exact()
    exact = exact_knn.answers(own)
    same = (answers.label == exact[constants.OUTPUT_LABEL]) & (answers.indices == exact[constants.OUTPUT_INDICES]).all(
        axis=1
    )
    check = embeddings.judge_embeddings(
        golden, model.info, answers.label, exact_knn.moved(host, own), int((~same).sum()), gates.margin
    )
    verdict = judge.judge(golden, answers, info, replace(gates, latency_ms=None))
    by_parity = tuple(said for said in verdict.failures if not said.startswith("parity"))
    failures = (*found.failures, *error_gates.stage_failures(check), *by_parity)
    measured = {name: getattr(verdict, name) for name in ("accuracy", "accuracy_rows", "accepted", "confusion")}
    return OwnRows(check, replace(found, **measured, failures=failures), answers.label)
