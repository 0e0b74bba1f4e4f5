"""`knnkit demo` of points, classified on host and device.

Runs the commands that a person would type (keygen, build, deploy), and prints them. Needs no
board: the device is a separate process with its own environment. All files are in one folder, but for the downloaded
wheels, which stay in the wheel cache.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from device_agent.shared.protocol import constants, documents, json_codec
from device_agent.shared.trust import dsse
from knnkit.api import TfKNN
from knnkit.commands import _decision_regions
from knnkit.config import load
from knnkit.data.dataset import Dataset
from knnkit.errors import MissingDependency, ParityFailed, UsageError, extra
from knnkit.fleet.device.classify_client import Answerer
from knnkit.fleet.device.connect import open_transport
from knnkit.fleet.device.probe import Facts, probe
from knnkit.fleet.jobs.check import prove
from knnkit.fleet.jobs.deploy import run_job
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.fleet.report import DeviceReport, FleetReport
from knnkit.fleet.targets import Target, targets_of
from knnkit.model.reference.enrolment import codes_of
from knnkit.model.tflite.load_tensorflow import load_tensorflow
from knnkit.release import keys
from knnkit.release.build import Built, ensure_release
from knnkit.release.package import read_package
from knnkit.release.signing import FileSigner
from knnkit.render import fleet_report, html, plots, terminal
from knnkit.render.decision_regions import Regions
from knnkit.training import source
from knnkit.training.source import Material

#: First line of the demo's deploy.yaml. It marks the folder of an earlier demo, even if a user has changed other lines.
_FIRST_LINE = "# A small experiment: 1,000 points around 5 centres, 300 of them held out, 3 neighbours that vote."
_DEPLOY_YAML = """
model:
  name: blobs
  data: {{sklearn: blobs}}
  test: 0.3
  seed: 0
  k: 3
release: {{dir: release, version: 1.0.0}}
signing: {{key: keys/signing.pem}}
gates: {{accuracy: 0.9}}
fleet:
  targets:
    - {{host: local, name: embedded, root: {root}}}
"""


def run(arguments: argparse.Namespace) -> int:
    """Builds and deploys a model; returns 0 if host and device found the reference's neighbours of every test row.

    Raises:
        MissingDependency: TensorFlow, scikit-learn or matplotlib is not installed.
        ParityFailed: some neighbours differ, or the device does not keep the release.
        UsageError: the folder of `--out` holds files that are not of a demo.
    """
    require_own(arguments.out, _FIRST_LINE)
    require_build_extra()
    return Demo(arguments.out.absolute()).run(as_json=arguments.json)


def require_build_extra() -> None:
    """Checks that TensorFlow, scikit-learn and matplotlib are installed.

    Raises:
        MissingDependency: one of them is not.
    """
    import importlib.util

    packages = {"tensorflow": "tensorflow", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}
    missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise MissingDependency(
            f"the demo needs packages that are not installed: {', '.join(missing)}", hint=extra("build")
        )


def require_own(folder: Path, first_line: str) -> None:
    """Checks that the folder is missing, empty, or of an earlier demo: its deploy.yaml begins with `first_line`.

    Raises:
        UsageError: the folder holds other files.
    """
    try:
        found = next(folder.iterdir(), None)
    except OSError:  # it does not exist yet, or cannot be written: writing then reports that
        return
    config = folder / "deploy.yaml"
    if found and not (config.is_file() and config.read_bytes().startswith(first_line.encode())):
        raise UsageError(
            f"--out {folder}: it holds {found.name}, and is not the folder of an earlier demo; nothing was changed",
            hint=f"--out {folder / 'knnkit-demo'}",
        )


@dataclass(frozen=True)
class _Witness:
    """How one implementation answered the test rows; `agrees` counts rows with the neighbours of the float64 search."""

    name: str
    accuracy: float
    agrees: int


class Demo:
    """Runs the steps of a demo in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.began = time.monotonic()

    def run(self, *, as_json: bool) -> int:
        """Builds, deploys, compares answers, draws, prints the result (`as_json`: as JSON); returns the exit code."""
        built, material, target, report = self.release(self._configure(), "loads TensorFlow, which takes longest")
        training, test = material.training, material.held_out
        assert test is not None  # deploy.yaml holds rows out
        with self.step("asking TfKNN on the host, TfliteKNN on the device, and a float64 search"):
            device, report = self.certify(target, report, built)
            witnesses = self._ask(built, training, test, device)
        with self.step("drawing"):
            truth = codes_of(built.info.classes, test.labels)
            regions = _decision_regions.ask(device, built.info, test.rows, truth, training.rows)
            picture, page = self._draw(regions, training, built, report)
        left = {"picture": picture, "report": page, "release": built.directory, "device": self.folder / "device"}
        return self._conclude(witnesses, len(test.rows), left, as_json=as_json)

    # --- the path -------------------------------------------------------------------------------------------------
    def _configure(self) -> Path:
        path = self.folder / "deploy.yaml"
        text = _FIRST_LINE + _DEPLOY_YAML.format(root=json.dumps(str(self.folder / "device")))
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return path

    def release(self, config_file: Path, note: str) -> tuple[Built, Material, Target, DeviceReport]:
        """Builds and deploys a deploy.yaml's model; returns (release, its rows, device, report of the deploy).

        `note` is printed beside the name of the build's step.
        Raises:
            ParityFailed: the device does not keep the release.
        """
        config = load.load(config_file)
        build, target = config.builds()[0], targets_of(config)[0]
        signer = self._keygen(build.signing.key)
        with self.step(f"knnkit build -c {self.shown(config_file)}", note):
            load_tensorflow()
            material, built = source.load(build), ensure_release(build, signer)
        manifest = built.manifest
        self.say(f"  {built.directory.name}/: {manifest.name} {manifest.version}, signed, {built.digest[:12]}")
        installs = "the first time, installs the device's environment"
        with self.step(f"knnkit deploy -c {self.shown(config_file)}", installs):
            return built, material, target, self._deploy(target, built, signer.public_pem)

    def _keygen(self, key: Path) -> Any:
        if not key.exists():
            with self.step(f"knnkit keygen --out {self.shown(key.with_suffix(''))}"):
                keys.generate(key.with_suffix(""))
        return FileSigner.load(key)

    def _deploy(self, target: Target, built: Built, public_pem: bytes) -> DeviceReport:
        """Deploys a release to a target, which then trusts the key `public_pem`; returns the report of the deploy."""
        keys = {dsse.fingerprint(public_pem): public_pem}
        package = read_package(built.directory, keys)
        holder = f"knnkit demo {secrets.token_hex(4)}"
        job = DeviceJob(target, package, secrets.token_hex(16), holder, keys=tuple(keys.items()))
        with terminal.Progress() as progress:
            report = run_job(job, progress.step)
            progress.end(target.name, report.outcome.value, "good" if report.good else "bad")
        if not report.good:
            raise ParityFailed(report.message, hint=report.hint, reason=report.reason)
        return report

    def certify(self, target: Target, report: DeviceReport, built: Built) -> tuple[Answerer, DeviceReport]:
        """Runs the golden check of the release `built` on a device: a deploy that had nothing to do ran no check.

        Returns a client that classifies on the device, and `report` with the certificate of this check.

        Raises:
            ParityFailed: the device did not pass the check.
        """
        transport = open_transport(target.name, target, 10.0)
        facts: Facts = probe(transport, target.root, timeout=60.0)
        proof = prove(transport, facts.agent_argv, built.digest, secrets.token_hex(16), timeout=300.0)
        if proof.wrong:
            raise ParityFailed(f"{target.name}: {proof.wrong}", reason=proof.reason, hint=proof.hint)
        return Answerer(transport, facts), replace(report, certificate=proof.certificate)

    # --- the experiment -------------------------------------------------------------------------------------------
    def _ask(self, built: Built, training: Dataset, test: Dataset, device: Answerer) -> list[_Witness]:
        k = built.info.k
        host = TfKNN(training.rows, k, labels=training.labels)
        rows, queries = np.asarray(training.rows, np.float64), np.asarray(test.rows, np.float64)
        distances = ((queries[:, None, :] - rows) ** 2).sum(axis=2)
        reference = np.argsort(distances, axis=1, kind="stable")[:, :k].astype(np.int32)
        answers = {
            "TfKNN on the host": (host.neighbors(test.rows).indices, host.predict(test.rows)),
            "TfliteKNN on the device": device.neighbours(test.rows),
        }
        return [
            _Witness(name, float((labels == test.labels).mean()), int((found == reference).all(axis=1).sum()))
            for name, (found, labels) in answers.items()
        ]

    def _draw(self, regions: Regions, training: Dataset, built: Built, device: DeviceReport) -> tuple[Path, Path]:
        codes = codes_of(built.info.classes, training.labels)
        title = (
            f"{built.info.k} nearest neighbours of {built.info.n_train} training rows, answered by an embedded device"
        )
        picture = self.folder / "experiment.png"
        plots.draw_experiment(picture, regions, np.asarray(training.rows, np.float64), codes, title=title)
        return picture, self.write_page(device, built, regions=regions, regions_from=device.name)

    def write_page(self, device: DeviceReport, built: Built, **more: Any) -> Path:
        """Writes report.html about one device, and returns its path; `more`: other content, such as `regions`."""
        manifest = built.manifest
        ref = documents.ReleaseRef(built.digest, manifest.name, manifest.version, manifest.sequence)
        report = FleetReport("deploy", device.started, device.seconds, (device,), releases=(ref,))
        page = fleet_report.page_of(report, gates=manifest.gates, **more)
        return html.write_report(self.folder / "report.html", page)

    # --- the output -----------------------------------------------------------------------------------------------
    def _conclude(self, witnesses: list[_Witness], rows: int, left: dict[str, Path], *, as_json: bool) -> int:
        identical = all(each.agrees == rows for each in witnesses)
        for each in witnesses if not as_json else ():
            same = f"all {rows}" if each.agrees == rows else f"{each.agrees} of {rows}"
            said = f"the neighbours of {same} test rows are identical to the float64 search's"
            print(f"{each.name + ':':<25}{said}; accuracy {each.accuracy!r}")
        if as_json:
            found = {"identical": identical, "rows": rows, "accuracy": {each.name: each.accuracy for each in witnesses}}
            print(json_codec.dumps(found | {what: str(path) for what, path in left.items()}))
        self.say_files(left)
        self.say(f"          (all files are in {self.shown(self.folder)}; remove that folder to clean up)")
        self.say(f"done in {time.monotonic() - self.began:.1f} s")
        if not identical:
            raise ParityFailed("host, device and reference do not find the same neighbours", reason="different")
        return constants.EXIT_OK

    @contextlib.contextmanager
    def step(self, what: str, note: str = "") -> Iterator[None]:
        """Prints the name of a step (`what`, and a note) when it begins, and its seconds when it ends."""
        self.say(f"{what}" + (f"   ({note})" if note else ""))
        began = time.monotonic()
        yield
        self.say(f"  {time.monotonic() - began:.1f} s")

    def shown(self, path: Path) -> str:
        """Returns a path relative to the current folder if it lies inside, else unchanged."""
        try:
            return str(path.relative_to(Path.cwd()))
        except ValueError:
            return str(path)

    def say_files(self, left: dict[str, Path]) -> None:
        """Prints the names and paths of the files that the demo leaves."""
        self.say("\n" + "\n".join(f"{what:<9} {self.shown(path)}" for what, path in left.items()))

    @staticmethod
    def say(text: str) -> None:
        """Prints progress on standard error."""
        print(text, file=sys.stderr, flush=True)
