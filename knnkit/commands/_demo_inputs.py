"""`knnkit demo --sound` and `--picture`: networks that compute the rows.

Makes a folder of files for each label, builds, deploys to the embedded device, and lets the device classify files that
are not training data. All files lie in one folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from device_agent.shared.embedding.files import files_of
from device_agent.shared.protocol import constants, json_codec
from knnkit.commands._demo_article import Demo, require_build_extra, require_own
from knnkit.data.dataset import load_sklearn
from knnkit.data.raw_lines import lines_of
from knnkit.errors import MissingDependency, ParityFailed, extra
from knnkit.fleet.device.classify_client import Answerer
from knnkit.fleet.report import DeviceReport
from knnkit.model.tflite.demo_embedder import train_embedder
from knnkit.release.build import Built
from knnkit.render import plots
from knnkit.training.source import Material

WORDS = ("yes", "stop", "start", "left", "right", "up", "down", "off", "help", "hello", "music", "window")
_STRANGER = "hippopotamus"
#: Voices of espeak-ng: accents, each spoken by several people; so slowly that every word fills a window of frames.
_ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-029")
_PEOPLE = ("m1", "m3", "m5", "m7", "f1", "f2", "f4")
_WORDS_A_MINUTE = 110
#: One voice in five is never trained on.
_UNHEARD = 5
_PACKAGE = "pyopen_wakeword"
_PICTURES = 400

_HEAD = "# A folder of files for each label, networks that turn files into numbers, and files new to the device."
_DEPLOY_YAML = """
model:
  name: {kind}
  data: {{files: 'training/{{label}}/{{source}}_*.{ending}', label: label}}
  split: {{group: source}}
  input: {input}
  test: 0.2
  k: 3
  reject: 0.99
release: {{dir: release, version: 1.0.0}}
signing: {{key: keys/signing.pem}}
fleet:
  targets:
    - {{host: local, name: embedded, root: {root}}}
"""
_SOUND = """
    audio: {rate: 16000}
    stages:
      - {file: networks/melspectrogram.tflite, multiply: 0.1, add: 2.0}
      - {file: networks/embedding_model.tflite, frames: 76, hop: 8}
    pool: [mean, max]"""
_PICTURE = "{image: {size: [8, 8], channels: 1}, stages: [networks/embedder.tflite]}"


def run(arguments: argparse.Namespace) -> int:
    """Builds and deploys a model; returns 0 if the device gives the host's labels, except where rounding may decide.

    Raises:
        MissingDependency: a package or espeak-ng is not installed.
        ParityFailed: the device fails the golden check: its answers differ from the host's.
        UsageError: the folder of `--out` holds files that are not of a demo.
    """
    require_own(arguments.out, _HEAD)
    require_build_extra()
    kind = "sound" if arguments.sound else "picture"
    return _InputDemo(arguments.out.absolute(), kind).run(as_json=arguments.json)


class _InputDemo(Demo):
    def __init__(self, folder: Path, kind: str) -> None:
        super().__init__(folder)
        self._kind = kind

    def run(self, *, as_json: bool) -> int:
        """Makes files, builds, deploys, classifies, prints the result (`as_json`: as JSON); returns the exit code."""
        config_file = self._write_config()
        make = self._make_sounds if self._kind == "sound" else self._make_pictures
        if not (self.folder / "unseen").exists():
            with self.step(f"making {self._kind}s in {self.shown(self.folder / 'training')}"):
                make()
        built, material, target, report = self.release(config_file, "runs the networks on every file")
        with self.step(f"knnkit classify --input {self.shown(self.folder / 'unseen')}"):
            device, report = self.certify(target, report, built)
            right = self._answers_of(device)
        picture, page = self._draw_rows(material, built, report)
        return self._end(right, report, {"picture": picture, "report": page}, as_json=as_json)

    def _write_config(self) -> Path:
        root = json.dumps(str(self.folder / "device"))
        sound = self._kind == "sound"
        given = {"input": _SOUND if sound else _PICTURE, "ending": "wav" if sound else "png"}
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "deploy.yaml"
        path.write_text(_HEAD + _DEPLOY_YAML.format(kind=f"demo-{self._kind}", root=root, **given), encoding="utf-8")
        return path

    def _make_sounds(self) -> None:
        networks = _networks()
        if shutil.which("espeak-ng") is None:
            raise MissingDependency(
                "the words are spoken by espeak-ng, which is not installed", hint="apt install espeak-ng"
            )
        (self.folder / "networks").mkdir(exist_ok=True)
        for name in ("melspectrogram.tflite", "embedding_model.tflite"):
            shutil.copy(networks / name, self.folder / "networks" / name)
        voices = [f"{accent}+{person}" for person in _PEOPLE for accent in _ACCENTS]
        spoken = []
        for number, voice in enumerate(voices):
            part = "training" if (number + 1) % _UNHEARD else "unseen"
            for word in (*WORDS, *([_STRANGER] if part == "unseen" else [])):
                folder = self.folder / part / (word if word in WORDS else constants.UNKNOWN_LABEL)
                folder.mkdir(parents=True, exist_ok=True)
                spoken.append((voice, word, folder / f"{voice}_.wav"))
        with ThreadPoolExecutor() as threads:
            list(threads.map(_speak, spoken))

    def _make_pictures(self) -> None:
        digits = load_sklearn("digits")
        order = np.random.default_rng(0).permutation(len(digits.rows))
        pixels = (digits.rows.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        (self.folder / "networks").mkdir(exist_ok=True)
        known = order[: len(order) // 2]
        rows = pixels[known, ..., None].astype(np.float32) / np.float32(255)
        (self.folder / "networks" / "embedder.tflite").write_bytes(train_embedder(rows, digits.labels[known]))
        for number, place in enumerate(order[-_PICTURES:].tolist()):
            part = "training" if number % 4 else "unseen"
            path = self.folder / part / str(digits.labels[place]) / f"{place}_.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            plots.write_picture(path, pixels[place])

    def _answers_of(self, device: Answerer) -> list[bool]:
        """Returns whether the device gives the right label, for each file that is not training data."""
        folder = self.folder / "unseen"
        labels = device.labels_of_lines([line for _, line in lines_of(folder)])
        return [label == path.parent.name for label, path in zip(labels, files_of(folder))]

    def _draw_rows(self, material: Material, built: Built, device: DeviceReport) -> tuple[Path, Path]:
        rows, labels = material.training.rows, material.training.labels.astype(str)
        groups = [(str(name), np.flatnonzero(labels == str(name))) for name in built.info.classes]
        title = f"{len(rows)} training {self._kind}s in the network's space, in two directions of most variance"
        picture = self.folder / "experiment.png"
        plots.draw_rows(picture, rows, groups, title)
        return picture, self.write_page(device, built)

    def _end(self, right: list[bool], report: DeviceReport, left: dict[str, Path], *, as_json: bool) -> int:
        proof = report.certificate
        own = proof.embedding if proof else None
        if own is None:
            said = f"{report.name}: its certificate does not compare the outputs of the networks"
            raise ParityFailed(said, reason="different")
        found = {"unseen": len(right), "right": sum(right), "embedding": json_codec.to_plain(own)}
        if as_json:
            print(json_codec.dumps(found | {what: str(path) for what, path in left.items()}))
        else:
            print(f"{sum(right)} of {len(right)} {self._kind}s that the model never saw have the right label")
            print(f"device and host compute rows that differ by at most {own.largest_error:.2g} (bound {own.bound:g})")
            print(f"{own.labels_same} of {own.rows} labels equal the host's; rounding explains {own.labels_open}")
        self.say_files(left)
        return constants.EXIT_OK


def _speak(order: tuple[str, str, Path]) -> None:
    voice, word, path = order
    command = ["espeak-ng", "-v", voice, "-s", str(_WORDS_A_MINUTE), "-w", str(path), word]
    subprocess.run(command, check=True, capture_output=True)


def _networks() -> Path:
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise MissingDependency("the networks are part of the package pyopen-wakeword", hint=extra("demo"))
    return Path(next(iter(found.submodule_search_locations))) / "models"
