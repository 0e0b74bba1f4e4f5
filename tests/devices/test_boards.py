"""One deploy takes five bare boards of three architectures to the same answers as the host. In order: the first test
provisions and deploys, those after it look at what came of it, the last takes it all away."""

from __future__ import annotations

import base64
import csv
import io
import json
import shlex
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import board_inputs, palmer, signals
from support.board_inputs import BoardInputs
from support.boards import run_knnkit
from support.device import Device

from device_agent.shared.embedding.files import files_of

MACHINES = {
    "x86-64-bookworm": ("x86_64", "3.11", "tflite_runtime", "1.26.4"),
    "aarch64-bookworm": ("aarch64", "3.11", "tflite_runtime", "1.26.4"),
    "armv7l-bookworm": ("armv7l", "3.11", "tflite_runtime", "1.24.2"),  # the distribution's NumPy
    "aarch64-trixie": ("aarch64", "3.13", "ai_edge_litert", "2.4.6"),
    "armv7l-trixie": ("armv7l", "3.13", "numpy", "2.2.4"),  # no TFLite wheel: the distribution's NumPy searches
}


def _report(done: Any) -> dict[str, dict[str, Any]]:
    assert done.returncode == 0, done.stderr[-3000:]
    return {device["name"]: device for device in json.loads(done.stdout)["devices"]}


@pytest.fixture(scope="module")
def deployed(fleet: Any, releases: Any) -> dict[str, dict[str, Any]]:
    """What one `knnkit deploy` to five bare boards reports."""
    words = ["--release", str(releases["digits"]), "--key", str(releases.public_key)]
    return _report(fleet.knnkit("deploy", "--offline", "--json", "--max-failures", "5", *words))


def test_the_boards_are_bare_and_what_they_say_they_are(fleet: Any) -> None:
    for name, board in fleet.boards.items():
        assert board.ssh("uname", "-m").strip() == MACHINES[name][0]
        assert board.ssh("ls", "-A").strip() == ""
        assert "No module named pip" in board.ssh("python3 -m pip 2>&1 || true")
        assert board.ssh("id", "-un").strip() == "pi"


def test_one_deploy_provisions_and_commits_them_all(deployed: dict[str, dict[str, Any]]) -> None:
    assert {name: device["outcome"] for name, device in deployed.items()} == dict.fromkeys(MACHINES, "committed")
    for device in deployed.values():
        assert [step["name"] for step in device["steps"] if step["name"] in ("provision", "activate", "confirm")] == [
            "provision",
            "activate",
            "confirm",
        ]


def test_each_board_runs_the_runtime_that_is_made_for_it(deployed: dict[str, dict[str, Any]]) -> None:
    for name, (machine, python, runtime, numpy_version) in MACHINES.items():
        said = deployed[name]["certificate"]
        assert said["device"]["machine"] == machine
        assert said["runtime"]["name"] == runtime
        assert said["runtime"]["python"].startswith(f"{python}.")
        assert said["runtime"]["numpy"] == numpy_version


def test_parity_finds_no_row_different_on_any_board(
    fleet: Any, deployed: dict[str, dict[str, Any]], releases: Any, record_property: Any
) -> None:
    done = fleet.knnkit("parity", "--json")
    found = _report(done)
    nonce = json.loads(done.stdout)["nonce"]
    with np.load(releases["digits"] / "golden.npz") as golden:
        rows = len(golden["rows"])
    for name in MACHINES:
        said = found[name]["certificate"]
        counts = {kind: said[kind] for kind in ("identical", "equivalent", "different")}
        record_property(name, counts)
        print(name, counts, "largest distance error", said["largest_distance_error"], "accuracy", said["accuracy"])
        assert said["different"] == 0
        assert said["identical"] + said["equivalent"] == rows > 100
        assert said["failures"] == []
        assert said["nonce"] == nonce
        assert said["release"] == deployed[name]["release"]["digest"]
    assert len({json.dumps(found[name]["certificate"]["confusion"]) for name in MACHINES}) == 1


def test_classify_on_each_board_gives_the_same_label_for_every_row(
    fleet: Any, deployed: dict[str, dict[str, Any]], releases: Any
) -> None:
    with np.load(releases["digits"] / "golden.npz") as golden:
        rows = golden["rows"][:200]
    lines = "".join(",".join(map(repr, map(float, row))) + "\n" for row in rows)
    answers = {}
    for name, board in fleet.boards.items():
        said = board.ssh("~/.knnkit/venv/bin/python -m device_agent classify --format csv", input=lines)
        answers[name] = [row[0] for row in csv.reader(io.StringIO(said))]
    expected = answers.pop("x86-64-bookworm")
    assert len(expected) >= 200
    assert len(set(expected)) >= 10
    assert answers == dict.fromkeys(answers, expected)


#: Boards whose kernels are also tried as those of a processor with dot products (Raspberry Pi 5).
_NEWER = [(name, "QEMU_CPU=cortex-a76") for name in ("aarch64-bookworm", "aarch64-trixie")]
_EVERY_KERNEL = """
import base64, hashlib, json, os, sys, tempfile
from pathlib import Path
import numpy as np
from device_agent.shared.golden.golden_set import Golden
from device_agent.inference.tflite_knn import TfliteKNN
model, golden = (base64.b64decode(line) for line in sys.stdin)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "model.tflite")
    path.write_bytes(model)
    rows, answers, settled = Golden.from_bytes(golden).rows[:300], set(), 0
    for search in sys.argv[1:]:
        for packed in (True, False):
            knn = TfliteKNN(path, search=search, packed=packed)
            assert knn.search == (search if knn.runtime.name != "numpy" else "numpy")
            assert (knn.runtime.delegate == "XNNPACK") is (packed and os.uname().machine != "armv7l")
            told = [knn.classify(rows), *(knn.classify(row[None]) for row in rows[:20])]
            for name in ("label", "indices"):
                said = np.concatenate([getattr(each, name) for each in told])
                answers.add((name, hashlib.sha256(said.astype("<i4").tobytes()).hexdigest()))
            settled = max(settled, knn.settled)
    exact = knn.get_exact().answers(rows[:40])  # in float64, with NumPy alone
    assert np.array_equal(exact["indices"], told[0].indices[:40])
print(json.dumps({"answers": sorted(answers), "rows": len(rows), "settled": settled}))
"""


@pytest.mark.parametrize(("release", "search"), [("spectra", "quantized"), ("blobs", "cells")])
def test_each_search_finds_the_same_by_the_kernels_of_every_board(
    release: str, search: str, fleet: Any, deployed: dict[str, dict[str, Any]], releases: Any
) -> None:
    files = [base64.b64encode((releases[release] / name).read_bytes()) for name in ("model.tflite", "golden.npz")]
    said = {}
    for name, processor in [*((name, "") for name in fleet.boards), *_NEWER]:
        words = [
            processor,
            "~/.knnkit/venv/bin/python",
            "-W",
            "error",
            "-c",
            shlex.quote(_EVERY_KERNEL),
            "full",
            search,
        ]
        said[name + processor] = json.loads(fleet.boards[name].ssh(*words, input=b"\n".join(files).decode()))
        assert said[name + processor].pop("settled") <= 6
    assert len(said["x86-64-bookworm"]["answers"]) == 2  # one set of labels, one of neighbours
    assert said["x86-64-bookworm"]["rows"] == 300
    assert all(answers == said["x86-64-bookworm"] for answers in said.values())


#: A release in a root of its own: activates it, and answers its golden inputs, or the rows that are sent.
_ACTIVATE = """
import base64, contextlib, io, json, sys, tarfile, tempfile
from pathlib import Path
from device_agent.cli import main
packed, key, rows = (base64.b64decode(line) for line in sys.stdin)
def agent(root, *words):
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main(["--root", root, *words])
    return printed.getvalue()
with tempfile.TemporaryDirectory() as root:
    Path(root, "trust").mkdir()
    Path(root, "trust", "key.pem").write_bytes(key)
    tarfile.open(fileobj=io.BytesIO(packed)).extractall(root)
    digest = json.loads(agent(root, "stage", f"{root}/release", "--json"))["release"]["digest"]
    found = json.loads(agent(root, "activate", digest, "--json"))
    if "certificate" in found and found["certificate"]:
        agent(root, "confirm", digest)
        from device_agent.shared.golden.golden_set import Golden
        raw = Golden.from_bytes(Path(root, "release", "golden.npz").read_bytes()).raw
        Path(root, "inputs.jsonl").write_bytes(rows or raw)
        agent(root, "classify", "--input", f"{root}/inputs.jsonl", "--output", f"{root}/answers.jsonl", "--proba")
        found["answers"] = [json.loads(line) for line in Path(root, "answers.jsonl").open()]
print(json.dumps(found))
"""


def _activate(board: Any, releases: Any, release: str, rows: bytes = b"") -> dict[str, Any]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        packed.add(releases[release], "release")
    parts = (buffer.getvalue(), releases.public_key.read_bytes(), rows)
    sent = b"".join(base64.b64encode(part) + b"\n" for part in parts).decode()
    found: dict[str, Any] = json.loads(board.ssh("~/.knnkit/venv/bin/python", "-c", shlex.quote(_ACTIVATE), input=sent))
    return found


def test_the_palmer_penguins_are_answered_as_in_scikit_learn_on_every_processor(
    fleet: Any, deployed: dict[str, dict[str, Any]], releases: Any, record_property: Any
) -> None:
    """Text, missing cells and numbers as people have them, through a ColumnTransformer, on four emulated boards."""
    rows, species = palmer.birds()[1]
    labels, shares = palmer.ask(rows)
    sent = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    assert sum(cell is None for row in rows for cell in row.values()) > 5
    for name in fleet.boards.keys() - {"x86-64-bookworm"}:
        found = _activate(fleet.boards[name], releases, "palmer", sent)
        proof, answers = found["certificate"], found["answers"]
        off = [abs(answer["probabilities"][each] - share)
               for answer, row in zip(answers, shares) for each, share in row.items()]  # fmt: skip
        record_property(name, {"rows": len(rows), "largest difference of a probability": max(off)})
        print(name, len(rows), "rows, largest difference of a probability:", max(off))
        assert [answer["label"] for answer in answers] == labels
        assert max(off) <= 1e-5
        assert [answer.get("missing", 0) for answer in answers] == [list(row.values()).count(None) for row in rows]
        assert (proof["different"], proof["failures"]) == (0, [])
        assert proof["accuracy"] == np.mean([one == two for one, two in zip(labels, species)])


def test_quantised_stages_give_the_host_s_labels_on_every_processor(
    fleet: Any, deployed: dict[str, dict[str, Any]], releases: Any, record_property: Any
) -> None:
    labels = {}
    for name, board in fleet.boards.items():
        found = _activate(board, releases, "pixels")
        if MACHINES[name][2] == "numpy":
            assert found["reason"] == "no-runtime"
            continue
        own = found["certificate"]["embedding"]
        record_property(name, own)
        print(name, own)
        assert (found["certificate"]["different"], found["certificate"]["failures"]) == (0, [])
        assert (own["above"], own["search_different"], own["labels_different"]) == (0, 0, 0)
        assert own["largest_error"] <= 0.1
        labels[name] = [answer["label"] for answer in found["answers"]]
    assert len(labels) == 4


#: Boards that run stages; the others of the fleet have other runtimes, and are emulated more slowly.
_WITH_STAGES = ("x86-64-bookworm", "aarch64-bookworm", "armv7l-bookworm")


@pytest.fixture(scope="module")
def inputs(releases: Any, tmp_path_factory: pytest.TempPathFactory) -> BoardInputs:
    return board_inputs.make(tmp_path_factory.mktemp("inputs"), releases)


class _Root:
    """A root of its own on some boards, with the environment of the fleet, and one on this machine."""

    def __init__(self, fleet: Any, releases: Any, name: str, folder: Path) -> None:
        self.fleet, self.releases, self.name = fleet, releases, name
        self.boards = {name: fleet.boards[name] for name in _WITH_STAGES}
        self.agent = f"~/{name}/venv/bin/python -m device_agent --root ~/{name}"
        self.host = Device(folder / "root", releases)
        for board in self.boards.values():
            make = (
                f"mkdir -p {name}/trust; chmod 700 {name}; ln -s ../.knnkit/venv {name}/venv; cat > {name}/trust/k.pem"
            )
            board.ssh(make, input=releases.public_key.read_text())

    def deploy(self, release: Path, *more: str) -> dict[str, dict[str, Any]]:
        """Deploys by SSH."""
        words = ["--release", str(release), "--key", str(self.releases.public_key), "--root", f"~/{self.name}", *more]
        targets = [word for name in self.boards for word in ("--target", name)]
        config = ["--ssh-config", str(self.fleet.ssh_config)]
        offline = () if "never" in more else ("--offline",)
        return _report(run_knnkit("deploy", *offline, "--json", *words, *targets, *config))

    def begin(self, release: Path, *more: str) -> dict[str, dict[str, Any]]:
        """Deploys by SSH, and on this machine; checks the three counts of every certificate."""
        found = self.deploy(release, *more)
        for name, device in found.items():
            own = device["certificate"]["embedding"]
            print(name, own)
            assert (device["certificate"]["different"], device["certificate"]["failures"]) == (0, [])
            assert (own["above"], own["search_different"], own["labels_different"]) == (0, 0, 0)
            assert own["labels_same"] + own["labels_open"] == own["rows"] >= 10
        self.host.install(release)
        return found

    def remove(self) -> None:
        for board in self.boards.values():
            board.ssh(f"rm -r {self.name}")


def test_spoken_words_are_heard_on_every_processor(
    fleet: Any, deployed: dict[str, dict[str, Any]], releases: Any, inputs: BoardInputs, tmp_path: Path
) -> None:
    root = _Root(fleet, releases, "words", tmp_path)
    root.begin(inputs.release("words"))
    files = list(files_of(inputs.unseen("words")))
    csv = ("--output-format", "csv")
    expected = [
        line.split(",")[1] for line in root.host.run("classify", "--input", inputs.unseen("words"), *csv).out.split()
    ]
    truth = [path.parent.name for path in files]
    print("heard:", list(zip(truth, expected)))
    assert sum(map(str.__eq__, truth, expected)) >= 0.7 * len(truth)
    frames = b"".join(len(data).to_bytes(4, "big") + data for data in (path.read_bytes() for path in files))
    sent = base64.b64encode(frames).decode(), base64.b64encode(files[0].read_bytes()).decode()
    for board in root.boards.values():
        stream = f"base64 -d | {root.agent} classify --stream --format frames --output-format csv"
        assert board.ssh(stream, input=sent[0]).split() == expected
        clip = f"base64 -d > clip.wav; {root.agent} classify --input clip.wav --output-format csv; rm clip.wav"
        assert board.ssh(clip, input=sent[1]).split() == expected[:1]
    root.remove()


def test_pictures_are_decoded_where_pillow_was_not(
    fleet: Any, deployed: dict[str, dict[str, Any]], releases: Any, inputs: BoardInputs, tmp_path: Path
) -> None:
    """A deploy installs Pillow for a model that takes pictures; on 32-bit ARM it is the distribution's."""
    root = _Root(fleet, releases, "pictures", tmp_path)
    first = root.begin(inputs.release("pictures"), "--provision", "never")
    lacks = {name for name, device in first.items() if any("no-pillow" in text for text in device["warnings"])}
    assert lacks == {"x86-64-bookworm", "aarch64-bookworm"}
    expected = root.host.run("classify", "--input", inputs.unseen("pictures"), "--output-format", "csv").out
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        packed.add(inputs.unseen("pictures"), "unseen")
    sent = base64.b64encode(buffer.getvalue()).decode()
    command = f"{root.agent} classify --input unseen --output-format csv 2>&1; rm -r unseen"
    answers = {name: one.ssh(f"base64 -d | tar x; {command}", input=sent) for name, one in root.boards.items()}
    assert answers.pop("armv7l-bookworm") == expected
    assert all("Pillow" in answer and "knnkit deploy" in answer for answer in answers.values())
    again = root.deploy(inputs.release("pictures"))
    provisioned = {name for name, device in again.items() for step in device["steps"] if step["name"] == "provision"}
    assert provisioned == lacks
    assert {device["outcome"] for device in again.values()} == {"unchanged"}
    assert not any("no-pillow" in text for device in again.values() for text in device["warnings"])
    for name in lacks:
        assert root.boards[name].ssh(f"base64 -d | tar x; {command}", input=sent) == expected
    assert sum(line.split("/")[0] == line.split(",")[1] for line in expected.split()) > 0.8 * expected.count("\n")
    root.remove()


def test_windows_of_a_live_stream_on_every_processor(
    fleet: Any, deployed: dict[str, dict[str, Any]], releases: Any, tmp_path: Path
) -> None:
    """Features of windows are a stage; the stream has bad lines, jumps of the time, and gaps."""
    root = _Root(fleet, releases, "motion", tmp_path)
    root.begin(releases["motion-long"])
    text = "".join(f"{line}\n" for line in (signals.HEADER, *(each.text for each in signals.stream(4, 6, 400))))
    expected = root.host.run("classify", "--stream", input=text).out
    assert len({line.rpartition(",")[2] for line in expected.splitlines()[1:]}) == len(signals.ACTIVITIES)
    for board in root.boards.values():
        assert board.ssh(
            f"{root.agent} classify --stream 2>&1 >answers | grep -c 'expected 4'; cat answers", input=text
        )
        assert board.ssh("cat answers; rm answers") == expected
        assert json.loads(board.ssh(f"{root.agent} status --json"))["cells"]["gaps"]["times"] > 0
    root.remove()


def test_a_second_deploy_has_nothing_to_do(fleet: Any, deployed: dict[str, dict[str, Any]], releases: Any) -> None:
    again = _report(
        fleet.knnkit(
            "deploy", "--offline", "--json", "--release", str(releases["digits"]), "--key", str(releases.public_key)
        )
    )
    assert {device["outcome"] for device in again.values()} == {"unchanged"}
    assert {device["sent_bytes"] for device in again.values()} == {0}


def test_provisioning_again_has_nothing_to_do(fleet: Any, deployed: dict[str, dict[str, Any]]) -> None:
    again = _report(fleet.knnkit("provision", "--offline", "--json"))
    assert {device["outcome"] for device in again.values()} == {"unchanged"}


def test_a_board_takes_the_other_runtime_and_keeps_it(
    fleet: Any, deployed: dict[str, dict[str, Any]], releases: Any
) -> None:
    """Chosen for one board; the next deploy to it says nothing of a runtime."""
    name = "aarch64-bookworm"
    named = ["--target", name, "--ssh-config", str(fleet.ssh_config), "--json"]
    switched = _report(run_knnkit("provision", "--offline", "--runtime", "ai_edge_litert", *named))[name]
    assert json.loads(switched["details"])["runtime"].startswith("ai-edge-litert==")
    words = ["--release", str(releases["digits"]), "--key", str(releases.public_key)]
    assert _report(run_knnkit("deploy", "--offline", *words, *named))[name]["outcome"] == "unchanged"
    said = _report(run_knnkit("parity", *named))[name]["certificate"]
    assert (said["runtime"]["name"], said["runtime"]["numpy"]) == ("ai_edge_litert", "2.4.6")
    assert said["device"]["machine"] == "aarch64"
    assert (said["different"], said["release"]) == (0, deployed[name]["release"]["digest"])


def test_a_32_bit_board_says_which_runtime_it_can_have(fleet: Any, deployed: dict[str, dict[str, Any]]) -> None:
    named = ["--target", "armv7l-bookworm", "--ssh-config", str(fleet.ssh_config)]
    done = run_knnkit("provision", "--offline", "--runtime", "ai_edge_litert", *named)
    assert done.returncode == 1
    assert "there is no ai_edge_litert for Python 3.11 on armv7l; such a board can have tflite_runtime" in done.stdout
    assert "2.14.0" in run_knnkit("status", *named).stdout


#: Feeds a stream, teaches a label while it runs, kills it, and starts another; prints what each answers.
_TEACH = """
cd && A="$HOME/.knnkit/venv/bin/python -m device_agent --root $HOME/taught" && mkfifo rows
$A classify --stream --json < rows > answers & exec 3> rows
lines() { until [ $(wc -l < answers) -ge $1 ]; do :; done; }
echo "$1" >&3; lines 1
$A enrol --label 9 --input examples.csv > /dev/null
echo "$1" >&3; lines 2
kill -9 $! ; exec 3>&-
cat answers
echo "$1" | $A classify --stream --json
rm rows answers
"""


def test_a_label_taught_on_a_board_is_answered_at_once_and_after_a_kill(
    fleet: Any, deployed: dict[str, dict[str, Any]], releases: Any, record_property: Any
) -> None:
    """Three examples of the digit 9, of which the model knows nothing; all other digits stay as they were."""
    from sklearn.datasets import load_digits

    board, agent = fleet.boards["aarch64-bookworm"], "~/.knnkit/venv/bin/python -m device_agent --root ~/taught"
    for name in ("model.tflite", "golden.npz", "release.json", "model.sig"):
        data = base64.b64encode((releases["no-nines"] / name).read_bytes()).decode()
        board.ssh(f"mkdir -p release taught/trust; chmod 700 taught; base64 -d > release/{name}", input=data)
    board.ssh("cat > taught/trust/signing.pem", input=releases.public_key.read_text())
    digest = json.loads(board.ssh(f"{agent} install ~/release --json"))["activated"]["release"]["digest"]
    board.ssh(f"{agent} confirm {digest}")
    images, digits = load_digits(return_X_y=True)
    rows = [",".join(map(str, image)) for image in images.astype(int).tolist()]
    nines = [row for row, digit in zip(rows, digits) if digit == 9]
    examples = [nines.pop(place) for place in (100, 50, 5)]  # of different writers
    asked = [*nines, *(row for row, digit in zip(rows, digits) if digit != 9)]
    truth = ["9"] * len(nines) + [str(digit) for digit in digits if digit != 9]

    def right() -> dict[str, int]:
        said = board.ssh(f"{agent} classify", input="".join(f"{row}\n" for row in asked)).splitlines()
        assert len(said) == len(asked)
        return {name: sum(line.split(",")[0] == t == name for line, t in zip(said, truth)) for name in set(truth)}

    before = right()
    board.ssh("cat > examples.csv", input="".join(f"{row}\n" for row in examples))
    script = f"set -- '{examples[0]}'; {_TEACH}"
    unknown, taught, again = map(json.loads, board.ssh("sh -s", input=script).splitlines())
    assert "local" not in unknown
    assert (taught["label"], taught["local"]) == (9, True)
    assert again == taught
    after = right()
    record_property("right", {"rows": {name: truth.count(name) for name in before}, "before": before, "after": after})
    print("right before and after, by digit:", before, after)
    assert before["9"] == 0
    assert after["9"] > 0.3 * truth.count("9")
    assert all(after[name] >= before[name] - 0.02 * truth.count(name) for name in before)
    found = json.loads(board.ssh(f"{agent} check --json"))
    assert (found["different"], found["taught"]["labels"], found["failures"]) == (0, {"9": 3}, [])
    board.ssh("rm -r taught release examples.csv")


#: The four boards whose programs are emulated learn from each other.
LEARN = """\
model:
  name: digits
  data: {{files: ["{folder}/no-nines.csv"], label: digit}}
  k: 1
  enrol: {{rows: 500}}
release: {{sequence: 12, dir: release}}
signing: {{key: "{key}"}}
"""


def test_what_one_board_is_taught_is_known_on_all(
    fleet: Any, deployed: dict[str, dict[str, Any]], releases: Any, tmp_path: Path, record_property: Any
) -> None:
    """Enrol on one, collect, promote, build, deploy: one command each, and every board answers the new digit."""
    from sklearn.datasets import load_digits

    names = [name for name in fleet.boards if not name.startswith("x86")]
    agent = "~/.knnkit/venv/bin/python -m device_agent"
    images, digits = load_digits(return_X_y=True)
    nines = [",".join(map(str, image)) for image in images[digits == 9].astype(int).tolist()]
    examples = "".join(f"{nines.pop(place)}\n" for place in (100, 50, 5))
    asked = "".join(f"{row}\n" for row in nines[:60])

    def knnkit(*words: str) -> dict[str, Any]:
        targets = [word for name in names for word in ("--target", name)] if words[0] != "promote" else []
        config = ["--ssh-config", str(fleet.ssh_config)] if targets else []
        done = run_knnkit(words[0], "-c", str(tmp_path / "deploy.yaml"), *words[1:], *targets, *config, "--json")
        assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def answer(name: str, *more: str) -> list[dict[str, Any]]:
        said = fleet.boards[name].ssh(f"{agent} classify --output-format jsonl", *more, input=asked)
        return [json.loads(line) for line in said.splitlines()]

    (tmp_path / "deploy.yaml").write_text(LEARN.format(folder=releases.folder, key=releases.private_key))
    release = releases.variant("no-nines", tmp_path / "release", sequence=11)
    knnkit("deploy", "--offline", "--release", str(release), "--key", str(releases.public_key))
    taught, *others = names
    ids = json.loads(fleet.boards[taught].ssh(f"{agent} enrol --label 9 --json", input=examples))["ids"]
    assert [any(row["label"] == 9 for row in answer(name)) for name in (taught, others[-1])] == [True, False]
    assert knnkit("collect", "-o", str(tmp_path))["devices"]
    told = knnkit("promote", str(tmp_path / "digits.parquet"))
    assert [(row["id"], row["label"], row["device"]) for row in told["rows"]] == [(name, "9", taught) for name in ids]
    assert {flip["after"] for flip in told["gain"]["flips"]} >= {"9"}
    knnkit("deploy", "--offline")
    found = {name: answer(name, "--neighbors") for name in names}
    right = {name: sum(row["label"] == 9 for row in rows) / len(rows) for name, rows in found.items()}
    record_property("right", right)
    print("right of the new digit, by board:", right)
    assert len({json.dumps(rows) for rows in found.values()}) == 1
    assert right[taught] > 0.3
    near = {row["neighbors"][0]["id"] for row in found[others[0]] if row["label"] == 9}
    assert near <= set(ids), "the answers of another board lead back to the rows of this one"
    assert f"{len(ids)} rows, 1 label, 0 rows used" in fleet.boards[taught].ssh(f"{agent} enrolled")


def test_remove_leaves_nothing(fleet: Any, deployed: dict[str, dict[str, Any]]) -> None:
    gone = _report(fleet.knnkit("provision", "--remove", "--json"))
    assert {device["details"] for device in gone.values()} == {'{"removed":true}'}
    for board in fleet.boards.values():
        assert board.ssh("ls", "-A").strip() == ""
        assert board.ssh("ls", "-A", "/tmp").strip() == ""


def test_the_fleet_s_certificates_come_from_different_boards(deployed: dict[str, dict[str, Any]]) -> None:
    hosts = {device["certificate"]["device"]["hostname"] for device in deployed.values()}
    assert len(hosts) == len(MACHINES)


def test_nothing_of_the_boards_is_on_this_machine(fleet: Any) -> None:
    assert "/run/board" not in Path("/proc/self/mounts").read_text()
