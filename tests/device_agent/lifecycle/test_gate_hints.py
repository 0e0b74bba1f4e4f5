"""What to do about a missed gate depends on the gate: parity has no advice on time."""

from __future__ import annotations

import pytest
from support import pages

from device_agent.lifecycle.check import require_gates
from device_agent.shared.protocol.errors import GateFailed


@pytest.mark.parametrize(
    ("failure", "advice"),
    [
        ("parity: 1 of 45 golden rows are answered differently", "--report report.html"),
        ("accuracy: 0.5 is below the gate of 0.9", "accuracy: ..."),
        ("latency: 9 ms per row is above the gate of 1 ms", "latency_ms: ..."),
    ],
)
def test_each_gate_has_advice_of_its_own(failure: str, advice: str) -> None:
    with pytest.raises(GateFailed) as caught:
        require_gates(pages.certificate(failures=(failure,)))
    assert advice in caught.value.hint
    assert "; " not in caught.value.hint
    assert "knnkit parity" not in caught.value.hint
