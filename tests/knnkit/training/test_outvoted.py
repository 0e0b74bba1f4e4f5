"""A class that can never win is found: against every set of neighbours, counted one by one."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from knnkit import cli
from knnkit.model.reference.spec import KnnSpec
from knnkit.release import keys
from knnkit.training import outvoted


@pytest.mark.parametrize("counts", [*itertools.product(range(1, 4), repeat=2), *itertools.product((1, 2, 5), repeat=3)])
def test_the_classes_found_are_those_that_no_set_of_neighbours_elects(counts: tuple[int, ...]) -> None:
    for k in range(1, sum(counts) + 1):
        sets = [votes for votes in itertools.product(*(range(n + 1) for n in counts)) if sum(votes) == k]
        winners = {int(np.argmax(votes)) for votes in sets}
        found = dict(outvoted._outvoted(k, counts))
        assert set(found) == set(range(len(counts))) - winners
        for code, least in found.items():
            more = [least if other == code else n for other, n in enumerate(counts)]
            assert code not in dict(outvoted._outvoted(k, more)), "so many rows are enough"
            more[code] -= 1
            assert code in dict(outvoted._outvoted(k, more)), "and fewer are not"


@pytest.mark.parametrize("more", [{"weights": "distance"}, {"radius": 1.0}, {"k": 1}])
def test_a_vote_that_one_row_can_win_gets_no_warning(more: dict[str, object]) -> None:
    asked: dict[str, object] = {"k": 3, "metric": "euclidean", "weights": "uniform", "scale": "none"}
    (said,) = outvoted.find(KnnSpec("m", **asked), ("a", "xyz"), (9, 1))  # type: ignore[arg-type]
    assert "k: 3 needs more training rows to win a vote: 'xyz' has 1 of 2" in said
    assert said.endswith("; k: 1, weights: distance, or more rows")
    assert outvoted.find(KnnSpec("m", **asked | more), ("a", "xyz"), (9, 1)) == ()  # type: ignore[arg-type]


def test_the_build_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    keys.generate(Path("signing"))
    lines = [f"{n},{n % 7},a" for n in range(30)]
    Path("rows.csv").write_text("\n".join(["x,y,kind", *lines, "90,3,xyz"]) + "\n")
    model = "model: {name: few, k: 3, weights: uniform, data: {file: rows.csv, label: kind}}\n"
    Path("deploy.yaml").write_text(model + "signing: {key: signing.pem}\n")
    assert cli.main(["build"]) == 0
    assert "knnkit: warning: few: no row can get these classes" in capsys.readouterr().err
