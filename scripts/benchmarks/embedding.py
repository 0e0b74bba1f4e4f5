"""scripts/bench embed: sounds and pictures on the agent, against the plain Python that a user would write.

Both run the same networks in the same TFLite runtime, one thread. Each answers one file in a new process (the first
answer), then a folder of files. The material is that of `knnkit demo --sound` and `--picture`, made under build/.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.peers import BUILD, environment

#: What people write today. Arguments: kind, networks, model, then a file or folder.
PLAIN = """
import sys, joblib, numpy as np
from pathlib import Path
from tflite_runtime.interpreter import Interpreter
kind, networks, model, path = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
def load(name, shape=None):
    made = Interpreter(str(networks / name), num_threads=1)
    if shape: made.resize_tensor_input(made.get_input_details()[0]["index"], shape)
    made.allocate_tensors()
    def run(x):
        made.set_tensor(made.get_input_details()[0]["index"], x.astype(np.float32))
        made.invoke()
        return made.get_tensor(made.get_output_details()[0]["index"])
    return run
if kind == "sound":
    from scipy.io import wavfile
    from scipy.signal import resample_poly
    mel, embed = load("melspectrogram.tflite", (1, 32000)), load("embedding_model.tflite")
    def row(file):
        rate, samples = wavfile.read(file)
        samples = resample_poly(samples.astype(np.float32), 320, 441) if rate == 22050 else samples
        samples = np.pad(samples[:32000], (0, max(0, 32000 - len(samples))))
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


def run(kind: str, rounds: int) -> dict[str, Any]:
    """Returns seconds of the first answer, and files a second, of agent and plain Python; medians of the rounds."""
    folder = BUILD / f"embed-{kind}"
    subprocess.run(
        [sys.executable, "-m", "knnkit", "demo", f"--{kind}", "--out", folder], env=environment(2), check=True
    )
    model, plain = folder / "plain.joblib", [sys.executable, "-c", PLAIN, kind, folder / "networks"]
    model.unlink(missing_ok=True)
    subprocess.run([*plain, model, folder / "training"], env=environment(1), check=True)
    agent = [sys.executable, "-m", "device_agent", "--root", folder / "device", "classify", "--input"]
    many = folder / "many"
    shutil.rmtree(many, ignore_errors=True)
    for number in range(3):
        shutil.copytree(folder / "unseen", many / str(number))
    one = next(path for path in sorted(many.rglob("*")) if path.is_file())
    count = sum(path.is_file() for path in many.rglob("*"))
    found: dict[str, dict[str, list[float]]] = {name: {"first": [], "all": []} for name in ("agent", "plain")}
    for _ in range(rounds):
        for name, command in (("agent", agent), ("plain", [*plain, model])):
            found[name]["first"].append(_seconds([*command, one]))
            found[name]["all"].append(_seconds([*command, many]))
    result: dict[str, Any] = {"files": count}
    for name, times in found.items():
        first, whole = (statistics.median(times[key]) for key in ("first", "all"))
        result[name] = {"first_answer_s": first, "files_per_second": (count - 1) / max(whole - first, 1e-9)}
    return result


def _seconds(command: list[Any]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, env=environment(1), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def table(results: dict[str, dict[str, Any]]) -> str:
    """Returns the figures as text."""
    lines = [f"{'':<10}{'first answer, s':>32}{'files a second':>32}"]
    for kind, found in results.items():
        cells = []
        for key in ("first_answer_s", "files_per_second"):
            agent, plain = found["agent"][key], found["plain"][key]
            ratio = plain / agent if key == "first_answer_s" else agent / plain
            cells.append(f"{agent:.3g} against {plain:.3g}: {ratio:.1f} x")
        lines.append(f"{kind:<10}{cells[0]:>32}{cells[1]:>32}")
    return "\n".join(lines)
