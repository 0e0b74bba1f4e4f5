"""`parity --data` reads the user's rows by the model's table, as a device does."""

from __future__ import annotations

import textwrap
from pathlib import Path

from support.releases import RECIPES, Releases

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.raw_rows import own_golden
from device_agent.shared.release.model_file import read_info
from knnkit.config import parse
from knnkit.release.golden import golden_for


def test_own_rows_have_missing_cells_and_unknown_categories(tmp_path: Path, releases: Releases) -> None:
    build = parse.parse(textwrap.dedent(RECIPES["plants"]), base=releases.folder).builds()[0]
    rows = "length,width,soil,size,kind\n,0.0,sand,small,k0\n6.0,2.0,gravel,large,k2\n3.0,1.0,,small,k1\n"
    (tmp_path / "own.csv").write_text(rows)
    own = golden_for(build, releases["plants"], tmp_path / "own.csv", None, 1e-5)
    golden = Golden.from_bytes(own.data)
    info = read_info(releases["plants"] / constants.MODEL_FILE)
    assert [info.classes[code] for code in golden.truth.tolist()] == ["k0", "k2", "k1"]
    assert b"gravel" in golden.raw
    assert own_golden(golden, info).rows.tobytes() == golden.rows.tobytes()
