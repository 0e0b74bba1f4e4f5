"""The same jobs on a Dask cluster: several worker processes, the waves and the budget stay here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT
from support.board_roots import copy_board, make_board
from support.releases import Releases
from support.simulation import how_many

from device_agent.shared.protocol import json_codec
from knnkit.cli import main
from knnkit.fleet.report import FleetReport, Outcome

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")  # its own warnings are not ours


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """Three worker processes that import this very source."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    with distributed.LocalCluster(
        n_workers=3, threads_per_worker=2, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as running:
        yield running
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def config(releases: Releases, tmp_path: Path) -> Path:
    """Nine devices on this machine; the last one's root is a file."""
    board = make_board(tmp_path / "board", releases)
    lines = []
    for number in range(9):
        root = copy_board(board, tmp_path / f"root{number}")
        if number == 8:
            (root / "incoming").write_bytes(b"")
        lines.append(f"    - {{name: d{number}, host: local, root: '{root}', tags: [t{number % 3}]}}\n")
    path = tmp_path / "deploy.yaml"
    path.write_text(
        "model: {name: iris, data: {sklearn: iris}}\nfleet:\n  targets:\n"
        + "".join(lines)
        + "rollout: {waves: [t0, 100%], max_failures: 1}\n"
    )
    return path


def executed(cluster: object) -> dict[str, int]:
    with distributed.Client(cluster) as client:
        counts: dict[str, int] = client.run(lambda dask_worker: dask_worker.state.executed_count)
        return counts


def test_waves_and_budget_hold_and_several_processes_share_the_work(
    cluster: object, config: Path, releases: Releases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = cluster.scheduler_address  # type: ignore[attr-defined]
    before = executed(cluster)
    words = ["deploy", "-c", str(config), "--release", str(releases["iris"]), "--dask", address, "--json"]
    assert main(words) == 1
    report = json_codec.loads(FleetReport, capsys.readouterr().out)
    assert how_many(report, Outcome.COMMITTED) == 8
    assert (report.devices[8].outcome, report.devices[8].reason) == (Outcome.FAILED, "cannot-write")
    assert [len(wave.devices) for wave in report.waves] == [3, 6]
    after = executed(cluster)
    shares = [after[worker] - before[worker] for worker in after]
    assert sum(shares) >= 9
    assert sum(share > 0 for share in shares) >= 2

    # Jobs that look alike are still run: nothing is taken from a cache.
    assert main(["parity", "-c", str(config), "--on", "t0", "--dask", address, "--json"]) == 0
    first = json_codec.loads(FleetReport, capsys.readouterr().out)
    assert main(["parity", "-c", str(config), "--on", "t0", "--dask", address, "--json"]) == 0
    second = json_codec.loads(FleetReport, capsys.readouterr().out)
    assert first.nonce != second.nonce
    assert {d.certificate.nonce for d in second.devices if d.certificate} == {second.nonce}


def test_a_scheduler_that_is_not_there_is_exit_3(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "-c", str(config), "--dask", "tcp://127.0.0.1:9"]) == 3
    assert "no Dask scheduler at tcp://127.0.0.1:9" in capsys.readouterr().err
