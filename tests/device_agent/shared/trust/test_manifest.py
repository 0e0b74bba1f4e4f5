"""Values of release.json: each gate has a range."""

from __future__ import annotations

import pytest

from device_agent.shared.protocol.errors import Refused
from device_agent.shared.protocol.model_info import Gates, Manifest
from device_agent.shared.protocol.record import shape
from device_agent.shared.trust.manifest import check_manifest

MANIFEST = Manifest("iris", "1.0.0", 1, 0, None, "any", "1.0", "2.5", 3, 4, "0" * 64, Gates())
BY_NAME = ("recall", "rmse", "max_error", "column_accuracy")
SHARES = ("margin", "accuracy", "balanced_accuracy", "min_recall", "by", "recall", "column_accuracy")


@pytest.mark.parametrize("name", [name for name in shape(Gates) or () if name != "not_worse_than"])
def test_a_gate_out_of_its_range_is_refused_by_name(name: str) -> None:
    check_manifest(MANIFEST)
    for value in (-1.0, 2.0) if name in SHARES else (-1.0,):
        gates = Gates(**{name: {"a": 0.5, "b": value} if name in BY_NAME else value})
        manifest = Manifest(**{**vars(MANIFEST), "gates": gates})
        with pytest.raises(Refused, match=rf"release\.json: gates\.{name} is .*; expected ") as raised:
            check_manifest(manifest)
        assert raised.value.reason == "manifest-malformed"
