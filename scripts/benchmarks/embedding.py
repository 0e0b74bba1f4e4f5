"""scripts/bench embed: sounds, pictures and windows on the agent, against the plain Python that a user would write.

Both run the same networks in the same TFLite runtime. Each answers one input in a new process (the first answer), then
many: on one core, and the agent on all cores as well, where it works on several sounds or pictures at once. Sounds and
pictures are those of `knnkit demo --sound` and `--picture`, made under build/. Windows are cut from a stream of
samples; the plain Python computes their features with NumPy.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import BUILD, environment

#: What people write today. Arguments: kind, networks, model, then a file or folder.
PLAIN = """
import sys, joblib, numpy as np
from pathlib import Path
from tflite_runtime.interpreter import Interpreter
kind, networks, model, path = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
def load(name):
    made = Interpreter(str(networks / name), num_threads=1)
    last = []
    def run(x):
        if last != [x.shape]:
            made.resize_tensor_input(made.get_input_details()[0]["index"], x.shape)
            made.allocate_tensors()
            last[:] = [x.shape]
        made.set_tensor(made.get_input_details()[0]["index"], x.astype(np.float32))
        made.invoke()
        return made.get_tensor(made.get_output_details()[0]["index"])
    return run
if kind == "sound":
    from scipy.io import wavfile
    from scipy.signal import resample_poly
    mel, embed = load("melspectrogram.tflite"), load("embedding_model.tflite")
    def row(file):
        rate, samples = wavfile.read(file)
        samples = resample_poly(samples.astype(np.float32), 320, 441) if rate == 22050 else samples
        samples = samples.astype(np.float32)
        frames = mel(samples[None]).squeeze() / 10 + 2
        found = [embed(frames[i:i + 76][None, :, :, None]).squeeze() for i in range(0, len(frames) - 75, 8)]
        return np.concatenate([np.mean(found, axis=0), np.max(found, axis=0)])
else:
    from PIL import Image
    embed = load("embedder.tflite")
    def row(file):
        pixels = np.asarray(Image.open(file).convert("L").resize((8, 8)), np.float32) / 255
        return embed(pixels[None, :, :, None]).squeeze()
files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
if not model.exists():
    from sklearn.neighbors import KNeighborsClassifier
    knn = KNeighborsClassifier(3).fit([row(f) for f in files], [f.parent.name for f in files])
    joblib.dump(knn, model)
    sys.exit()
knn = joblib.load(model)
for file in files:
    print(knn.predict([row(file)])[0], flush=True)
"""


#: What people write today for windows of a sensor. Arguments: model, and a file of samples to train on, at first.
PLAIN_WINDOWS = """
import sys, collections, joblib, numpy as np
ROWS, HOP, BANDS = 128, 64, 8
def features(samples):
    w = np.array(samples)
    spectrum = 2 / ROWS * np.abs(np.fft.rfft(w - w.mean(axis=0), axis=0))[1:]
    crossings = (np.diff((w >= 0).astype(int), axis=0) != 0).sum(axis=0)
    bands = [band.mean(axis=0) for band in np.array_split(spectrum, BANDS)]
    rms = np.sqrt((w ** 2).mean(axis=0))
    return np.concatenate([w.mean(axis=0), w.std(axis=0), w.min(axis=0), w.max(axis=0), rms, crossings, *bands])
def windows(lines):
    held, wait = collections.deque(maxlen=ROWS), ROWS
    for line in lines:
        held.append([float(cell) for cell in line.split(",")[:3]])
        wait -= 1
        if not wait:
            yield features(held)
            wait = HOP
if len(sys.argv) > 2:
    from pathlib import Path
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    files = sorted(Path(sys.argv[2]).glob("*/*.csv"))
    found = [(row, f.parent.name) for f in files for row in windows(f.open().readlines()[1:])]
    joblib.dump(make_pipeline(StandardScaler(), KNeighborsClassifier(3)).fit(*map(list, zip(*found))), sys.argv[1])
    sys.exit()
model = joblib.load(sys.argv[1])
for row in windows(sys.stdin):
    print(model.predict([row])[0], flush=True)
"""
DEPLOY_WINDOWS = """
model:
  name: windows
  data: {files: 'training/*/*.csv', labels: folder, label: activity}
  input:
    window: {columns: [ax, ay, az], rows: 128, hop: 64}
    features: [mean, std, min, max, rms, zero_crossings, spectrum: 8]
  k: 3
  scale: standard
  test: 0
signing: {key: keys/signing.pem}
fleet: {targets: [{host: local, name: embedded, root: ROOT}]}
"""
_ACTIVITIES = {"stand": 0.0, "walk": 1.9, "run": 2.8}
_SAMPLES = 200_000
#: How many times as many inputs a second as the plain Python, on one core, and how much sooner the first answer.
GOALS = {"inputs_per_second": 3.0, "first_answer_s": 4.0}
#: The agent on all cores, among the results.
ALL_CORES = "agent, all cores"


def _samples(hertz: float, count: int, rng: np.random.Generator) -> list[str]:
    """Returns lines of an accelerometer at 50 Hz."""
    phase = 2.0 * np.pi * hertz * np.arange(count) / 50.0 + rng.uniform(0.0, 6.0)
    moved = np.stack([np.sin(phase), np.cos(phase), np.sin(2.0 * phase)], axis=1) * (hertz > 0.0)
    found = moved + np.array([0.1, 0.2, 9.8]) + rng.normal(0.0, 0.2, (count, 3))
    return [",".join(f"{value:.4f}" for value in sample) + "\n" for sample in found]


def _windows(rounds: int) -> dict[str, Any]:
    """Measures windows of a stream, as `run`."""
    folder, rng = BUILD / "embed-window", np.random.default_rng(0)
    shutil.rmtree(folder, ignore_errors=True)
    for label, hertz in _ACTIVITIES.items():
        (folder / "training" / label).mkdir(parents=True)
        for number in range(8):
            lines = ["ax,ay,az\n", *_samples(hertz, 1600, rng)]
            (folder / "training" / label / f"{number}.csv").write_text("".join(lines))
    lines = [line for _ in range(4) for hertz in _ACTIVITIES.values() for line in _samples(hertz, _SAMPLES // 12, rng)]
    (folder / "many.csv").write_text("".join(lines))
    (folder / "one.csv").write_text("".join(lines[:128]))
    (folder / "deploy.yaml").write_text(DEPLOY_WINDOWS.replace("ROOT", str(folder / "device")))
    knnkit = [sys.executable, "-m", "knnkit"]
    subprocess.run([*knnkit, "keygen", "--out", folder / "keys" / "signing"], env=environment(2), check=True)
    subprocess.run([*knnkit, "deploy", "-c", folder / "deploy.yaml"], env=environment(2), check=True)
    plain, model = [sys.executable, "-c", PLAIN_WINDOWS], folder / "plain.joblib"
    subprocess.run([*plain, model, folder / "training"], env=environment(1), check=True)
    classify = ["classify", "--stream", "--format", "csv"]
    agent = [sys.executable, "-m", "device_agent", "--root", folder / "device", *classify]
    commands = {"agent": agent, "plain": [*plain, model]}
    labels = {
        name: [
            line.rpartition(",")[2]
            for line in _run(command, folder / "many.csv").stdout.decode().splitlines()
            if not line.endswith(",label")
        ]
        for name, command in commands.items()
    }
    count = len(labels["plain"])
    found = _measure(
        {name: ((command, folder / "one.csv"), (command, folder / "many.csv")) for name, command in commands.items()},
        rounds,
        count,
    )
    differ = sum(a != b for a, b in zip(*labels.values())) + abs(len(labels["agent"]) - count)
    return found | {"labels_that_differ": differ}


def run(kind: str, rounds: int) -> dict[str, Any]:
    """Returns seconds of the first answer and inputs a second, of agent and plain Python: medians of `rounds`."""
    return _windows(rounds) if kind == "window" else _files(kind, rounds)


def _files(kind: str, rounds: int) -> dict[str, Any]:
    """Measures sounds or pictures."""
    folder = BUILD / f"embed-{kind}"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "knnkit", "demo", f"--{kind}", "--out", folder], env=environment(2), check=True
    )
    model, plain = folder / "plain.joblib", [sys.executable, "-c", PLAIN, kind, folder / "networks"]
    subprocess.run([*plain, model, folder / "training"], env=environment(1), check=True)
    agent = [sys.executable, "-m", "device_agent", "--root", folder / "device", "classify", "--input"]
    many = folder / "many"
    for number in range(3):
        shutil.copytree(folder / "unseen", many / str(number))
    one = next(path for path in sorted(many.rglob("*")) if path.is_file())
    count = sum(path.is_file() for path in many.rglob("*"))
    commands = {"agent": agent, "plain": [*plain, model], ALL_CORES: agent}
    more = {"by_voice": _by_voice(folder)} if kind == "sound" else {}
    calls = {name: (([*command, one], None), ([*command, many], None)) for name, command in commands.items()}
    return _measure(calls, rounds, count) | more


def _by_voice(folder: Path) -> dict[str, Any]:
    """Returns the accuracy on words of voices that the training rows do not have: 5-fold, by voice."""
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    from knnkit.config import load
    from knnkit.data.raw_files import list_files
    from knnkit.training.inputs import embedder_of

    model = load.load(folder / "deploy.yaml").builds()[0].model
    embedder = embedder_of(model.input)
    shutil.copytree(folder / "unseen", folder / "words", ignore=shutil.ignore_patterns("unknown"))
    patterns = [folder / part / "{label}" / "{source}_*.wav" for part in ("training", "words")]
    raw = list_files(patterns, "label", None, "source")
    rows, _ = embedder.apply_to_files(raw)
    voices, classifier = np.array(raw.groups), KNeighborsClassifier(model.k)
    found = cross_val_predict(classifier, rows.rows, rows.labels, groups=voices, cv=GroupKFold(5))
    right = float(np.mean(found == rows.labels))
    return {"accuracy": right, "files": len(found), "voices": len(set(voices)), "words": len(set(found))}


#: A command, and its standard input.
Call = tuple[list[Any], Path | None]


def _measure(calls: dict[str, tuple[Call, Call]], rounds: int, count: int) -> dict[str, Any]:
    """Runs each program in turns, for one input and for `count`; returns medians."""
    times: dict[str, list[list[float]]] = {name: [[], []] for name in calls}
    for _ in range(rounds):
        for name, both in calls.items():
            for place, call in enumerate(both):
                begun = time.perf_counter()
                _run(*call, one_core=name != ALL_CORES)
                times[name][place].append(time.perf_counter() - begun)
    result: dict[str, Any] = {"inputs": count, "cores": len(os.sched_getaffinity(0))}
    for name, (one, many) in times.items():
        first, whole = statistics.median(one), statistics.median(many)
        result[name] = {"first_answer_s": first, "inputs_per_second": (count - 1) / max(whole - first, 1e-9)}
    return result


def _run(command: list[Any], given: Path | None = None, *, one_core: bool = True) -> subprocess.CompletedProcess[bytes]:
    cores = os.sched_getaffinity(0)
    pinned = {max(cores)} if one_core else cores
    with (given or Path("/dev/null")).open("rb") as file:
        return subprocess.run(
            command,
            stdin=file,
            env=environment(1),
            check=True,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: os.sched_setaffinity(0, pinned),
        )


def goals(results: dict[str, dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Returns name, ratio and least ratio of each goal."""
    return [
        (f"{kind}: {key}", _ratio(found, "agent", key), least)
        for kind, found in results.items()
        for key, least in GOALS.items()
    ]


def _ratio(found: dict[str, Any], name: str, key: str) -> float:
    ours, plain = found[name][key], found["plain"][key]
    return float(plain / ours if key == "first_answer_s" else ours / plain)


def table(results: dict[str, dict[str, Any]]) -> str:
    """Returns the figures as text."""
    cores = max(found["cores"] for found in results.values())
    lines = [
        f"{'':<10}{'first answer, s':^30}{'inputs a second, one core':^30}{f'{cores} cores':^20}",
        f"{'':<10}" + f"{'agent':>9}{'plain':>10}{'ratio':>8}   " * 2 + f"{'agent':>9}{'ratio':>8}",
    ]
    for kind, found in results.items():
        line = f"{kind:<10}"
        for key in ("first_answer_s", "inputs_per_second"):
            agent, plain = (f"{found[name][key]:.3g}" for name in ("agent", "plain"))
            line += f"{agent:>9}{plain:>10}{_ratio(found, 'agent', key):>8.1f}   "
        if ALL_CORES in found:
            key = "inputs_per_second"
            line += f"{found[ALL_CORES][key]:>9.3g}{_ratio(found, ALL_CORES, key):>8.1f}"
        lines.append(line.rstrip())
    for kind, found in results.items():
        if said := found.get("by_voice"):
            text = "{words} words of {voices} voices, 5-fold by voice: {accuracy:.1%} of {files:,}".format(**said)
            lines.append(f"{kind}: {text}")
        if "labels_that_differ" in found:
            lines.append(f"{kind}: {found['labels_that_differ']} of {found['inputs']:,} labels differ")
    missed = [f"missed: {name}, {ratio:.1f} x of {least:g}" for name, ratio, least in goals(results) if ratio < least]
    return "\n".join([*lines, *missed])
