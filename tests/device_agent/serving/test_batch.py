"""classify in batch: every format in and out, and what is said about input that is wrong."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.device import ROOT, Device
from support.releases import Releases
from support.runtimes import TFLITE

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.release.model_file import read_info
from device_agent.shared.tabular.csv_reader import CsvParser
from device_agent.shared.tabular.json_reader import JsonParser


class Ready:
    """A device that answers with `iris` (four features, names as labels, a reject threshold)."""

    def __init__(self, device: Device, release: Path) -> None:
        self.device = device
        self.digest = device.install(release)
        self.info: KnnInfo = read_info(release / constants.MODEL_FILE)
        self.golden = Golden.from_bytes((release / constants.GOLDEN_FILE).read_bytes())
        self.rows = self.golden.rows
        self.labels = [str((*self.info.classes, constants.UNKNOWN_LABEL)[label]) for label in self.golden.label]

    def csv(self, *, header: bool = False, order: list[int] | None = None) -> str:
        order = order or list(range(self.rows.shape[1]))
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        if header:
            writer.writerow([self.info.feature_names[place] for place in order])
        writer.writerows(self.rows[:, order].tolist())
        return buffer.getvalue()


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Ready:
    return Ready(Device(tmp_path_factory.mktemp("ready") / "root", releases), releases["iris"])


def test_csv_in_csv_out(ready: Ready) -> None:
    said = ready.device.run("classify", input=ready.csv())
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == ready.labels


def test_with_a_header_columns_are_matched_by_name_and_the_answers_have_a_header(ready: Ready) -> None:
    said = ready.device.run("classify", input=ready.csv(header=True, order=[3, 1, 0, 2]))
    assert said.out.splitlines() == ["label", *ready.labels]


def test_json_lines_arrays_and_objects(ready: Ready) -> None:
    names = ready.info.feature_names
    lines = [
        json.dumps(row if number % 2 else dict(zip(reversed(names), reversed(row))))
        for number, row in enumerate(ready.rows.tolist())
    ]
    said = ready.device.run("classify", input="\n".join(lines))
    assert [json.loads(line)["label"] for line in said.out.splitlines()] == ready.labels


def test_npy_in_npy_out_by_file_and_by_pipe(ready: Ready, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ready.rows)
    said = ready.device.run("classify", "--input", tmp_path / "rows.npy", "--output", tmp_path / "labels.npy")
    assert (said.code, said.out, said.err) == (0, "", "")
    assert np.load(tmp_path / "labels.npy").tolist() == ready.labels
    done = subprocess.run(
        ready.device.argv("classify"),
        input=(tmp_path / "rows.npy").read_bytes(),
        capture_output=True,
        env=ready.device.env(),
        check=True,
    )
    assert np.load(io.BytesIO(done.stdout)).tolist() == ready.labels
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.npy", "rows.npy"]


def test_all_that_can_be_asked_for_agrees_with_the_reference_in_every_format(ready: Ready, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ready.rows)
    everything = ("classify", "--input", tmp_path / "rows.npy", "--proba", "--neighbors", "--digest")
    text = ready.device.run(*everything, "--output-format", "jsonl").out
    table = ready.device.run(*everything, "--output-format", "csv").out
    ready.device.run(*everything, "--output", tmp_path / "all.npy")
    entries = np.load(tmp_path / "all.npy")
    k, classes = ready.info.k, ready.info.classes
    for number, (line, fields) in enumerate(zip(text.splitlines(), csv.reader(table.splitlines()), strict=True)):
        record = json.loads(line)
        nearest = record["neighbors"]
        assert record["label"] == ready.labels[number] == fields[0] == entries["label"][number]
        assert [one["index"] for one in nearest] == ready.golden.indices[number, :k].tolist()
        assert entries["indices"][number].tolist() == [one["index"] for one in nearest]
        expected = [classes[place] for place in ready.golden.classes[number, :k]]
        assert [one["label"] for one in nearest] == expected == entries["classes"][number].tolist()
        distances = ready.golden.distances[number, :k]
        np.testing.assert_allclose([one["distance"] for one in nearest], distances, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(entries["distances"][number], np.float32([one["distance"] for one in nearest]))
        assert sum(record["probabilities"].values()) == pytest.approx(1.0, abs=1e-6)
        assert list(record["probabilities"]) == [str(label) for label in classes]
        assert record["digest"] == fields[-1] == entries["digest"][number].decode() == ready.digest
        origins = fields[1 + len(classes) + 3 * k : -1]
        assert [int(row) for row in origins[::2]] == [one["row"] for one in nearest] == entries["rows"][number].tolist()
        assert origins[1::2] == [""] * k
        assert len(fields) == 1 + len(classes) + 3 * k + 2 * k + 1


@pytest.mark.parametrize("neighbors", [True, False])
def test_only_who_asks_for_neighbours_reads_where_rows_come_from(ready: Ready, neighbors: bool) -> None:
    words = ["--root", str(ready.device.root), "classify", *(["--neighbors"] if neighbors else [])]
    program = (
        f"import sys; from device_agent import cli; assert cli.main({words}) == 0; "
        "print('device_agent.shared.release.row_origins' in sys.modules, file=sys.stderr)"
    )
    row = ",".join(map(str, ready.rows[0].tolist())) + "\n"
    done = subprocess.run([sys.executable, "-c", program], input=row.encode(), capture_output=True, check=True)
    assert done.stderr.decode().strip() == str(neighbors)


def test_numbers_as_labels_stay_numbers(device: Device, releases: Releases, tmp_path: Path) -> None:
    device.install(releases["blobs"])
    golden = Golden.from_bytes((releases["blobs"] / constants.GOLDEN_FILE).read_bytes())
    np.save(tmp_path / "rows.npy", golden.rows.astype(np.float64))
    device.run("classify", "--input", tmp_path / "rows.npy", "--output", tmp_path / "labels.npy")
    labels = np.load(tmp_path / "labels.npy")
    assert labels.dtype == np.int64
    assert labels.tolist() == golden.label.tolist()
    said = device.run("classify", "--output-format", "jsonl", input="1.5,2\n")
    assert isinstance(json.loads(said.out)["label"], int)


def test_a_far_away_row_is_unknown(ready: Ready) -> None:
    assert ready.device.run("classify", input="1000,1000,1000,1000\n").out == "unknown\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5.1,3.5,1.4\n", "line 1: expected 4 columns, found 3"),
        ("5.1,3.5,1.4,0.2,9\n", "line 1: expected 4 columns, found 5"),
        ("5.1,3.5,1.4,0.2\n5.1,x,1.4,0.2\n", "line 2: column 2 ('sepal width (cm)'): 'x' is not a number"),
        ("5.1,3.5,1.4,0.2\n5.1,,1.4,0.2\n", "line 2: column 2 ('sepal width (cm)'): the cell is empty"),
        ("5.1,3.5,1.4,0.2\n5.1,nan,1.4,0.2\n", "line 2: column 2 ('sepal width (cm)'): 'nan' is not a finite number"),
        ("5.1,3.5,1.4,1e39\n", "line 1: column 4 ('petal width (cm)'): '1e39' is too large for float32"),
        ("5.1,3.5,1.4,inf\n", "'inf' is not a finite number"),
        ("1_0,3.5,1.4,1\n", "line 1: column 1 ('sepal length (cm)'): '1_0' is not a number"),
        ("a,b,c,d\n", "line 1: not numbers, and no header either: the line names no column of the model"),
        ("sepal length (cm),petal width (cm)\n1,2\n", "line 1: the header has no column 'sepal width (cm)'"),
        ("[1,2,3]\n", "line 1: expected 4 values, found 3"),
        ("[1,2,3,null]\n", "line 1: value 4 ('petal width (cm)'): 'null' is not a number"),
        ("[1,2,3,NaN]\n", "is not a finite number"),
        ('{"sepal length (cm)": 1}\n', "line 1: the object has no key 'sepal width (cm)' (nor 2 more)"),
        (
            '{"file": "a.png"}\n',
            "try: the model has the columns sepal length (cm), sepal width (cm), petal length (cm), petal",
        ),
        ("[1,2\n", "line 1: not JSON"),
        ("[1,2,3,4]\n7\n", "line 2: expected a JSON array or object"),
        ("", "standard input: the input has no rows"),
        ("\n\n", "standard input: the input has no rows"),
        ('"5.1,3.5\n', "line 1: not a line of CSV"),
    ],
)
def test_wrong_input_is_named_by_line_and_column(ready: Ready, text: str, message: str, tmp_path: Path) -> None:
    said = ready.device.run("classify", "--output", tmp_path / "out", input=text)
    assert said.code == constants.EXIT_USAGE
    assert message in said.err
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_csv_that_was_called_json_is_told_as_what_it_is(ready: Ready) -> None:
    said = ready.device.run("classify", "--format", "jsonl", input="5.1,3.5,1.4,0.2\n")
    assert (said.code, "--format csv" in said.err) == (constants.EXIT_USAGE, True)


def test_a_column_that_the_model_does_not_know_is_refused_or_left_out_as_asked(ready: Ready) -> None:
    names = ready.info.feature_names
    text = f"id,{','.join(names)},species\nrow-7,{','.join(map(str, ready.rows[0].tolist()))},setosa\n"
    said = ready.device.run("classify", input=text)
    assert said.code == constants.EXIT_USAGE
    assert "the model has no column 'id' (nor 1 more)" in said.err
    assert "--ignore-extra" in said.err
    assert ready.device.run("classify", "--ignore-extra", input=text).out == f"label\n{ready.labels[0]}\n"


def damaged_arrays() -> Iterator[tuple[bytes, str]]:
    def saved(array: np.ndarray, cut: int | None = None) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=True)
        return buffer.getvalue()[:cut]

    yield saved(np.zeros((3, 5))), "expected rows of 4 numbers, found the shape (3, 5)"
    yield saved(np.zeros((3, 4)), -8), "the file ends in row 2, but its header states 3 rows"
    yield saved(np.array([["a"] * 4])), "the array contains <U1, not numbers"
    yield saved(np.array([[None] * 4])), "the array contains object, not numbers"
    yield saved(np.asfortranarray(np.zeros((3, 4)))), "the array is stored by columns"
    yield saved(np.asfortranarray(np.zeros((1, 2, 2)))), "the array is stored by columns"
    yield saved(np.full((2, 4), np.nan)), "rows[0, 0] ('sepal length (cm)'): nan is not a finite"
    large = np.ones((5000, 4))
    large[4999, 3] = 1e39
    yield saved(large), "standard input: rows[4999, 3] ('petal width (cm)'): 1e+39 is not a finite float32 number"
    yield b"\x93NUMPY\x01\x00\xff\xff" + b"{" * 10, "the NPY header is damaged"
    yield b"\x93NUMPY\x09\x00", "not an NPY file"
    endless = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1e999, 4)}"
    yield b"\x93NUMPY\x01\x00" + len(endless).to_bytes(2, "little") + endless, "the NPY header is damaged"


@pytest.mark.parametrize("shape", [(-1, 2, 2), (-1, 2, 1, 2), (-1, 4, 1)])
def test_images_in_npy_are_rows_of_their_pixels(ready: Ready, shape: tuple[int, ...]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, ready.rows.reshape(shape))
    said = ready.device.run("classify", "--format", "npy", "--output-format", "csv", input=buffer.getvalue())
    assert said.out.splitlines() == ready.labels


@pytest.mark.parametrize(("data", "message"), list(damaged_arrays()), ids=lambda value: "")
def test_a_damaged_npy_file_is_refused(ready: Ready, data: bytes, message: str) -> None:
    done = subprocess.run(
        ready.device.argv("classify", "--format", "npy"),
        input=data,
        capture_output=True,
        env=ready.device.env(),
        check=False,
    )
    assert done.returncode == constants.EXIT_USAGE
    assert message in done.stderr.decode()
    assert done.stdout == b""


@pytest.mark.parametrize("how", [(), ("--stream",)])
def test_a_row_beyond_float32_distances_is_answered_in_json(ready: Ready, how: tuple[str, ...]) -> None:
    asked = ("--format", "csv", "--output-format", "jsonl", "--neighbors", "--proba")
    said = ready.device.run("classify", *asked, *how, input="3.4e38,-3.4e38,3.4e38,3.4e38\n")
    assert (said.code, said.err) == (0, "")
    assert all(neighbor["distance"] > 1e38 for neighbor in json.loads(said.out)["neighbors"])


@pytest.mark.parametrize("how", [(), ("--stream",)])
@pytest.mark.parametrize("piped", [False, True])
def test_answers_do_not_take_the_place_of_the_rows(
    ready: Ready, how: tuple[str, ...], piped: bool, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_bytes(ready.csv().encode())
    (tmp_path / "link").symlink_to(rows)
    argv = ready.device.argv("classify", *how, "--output", tmp_path / "link", *([] if piped else ["--input", rows]))
    with rows.open() as file:
        done = subprocess.run(argv, stdin=file, capture_output=True, text=True, env=ready.device.env(), timeout=60)
    assert done.returncode == constants.EXIT_USAGE
    assert f"--output {tmp_path / 'link'} is the file with the rows\n  try: name another file" in done.stderr
    assert rows.read_bytes().decode() == ready.csv()


def test_a_folder_that_is_not_there_is_told_by_the_name_that_was_typed(ready: Ready, tmp_path: Path) -> None:
    said = ready.device.run("classify", "--output", tmp_path / "no" / "out.csv", input=ready.csv())
    assert said.code == constants.EXIT_USAGE
    assert f"{tmp_path}/no/out.csv: No such file or directory" in said.err


def test_a_missing_file_is_named(ready: Ready) -> None:
    said = ready.device.run("classify", "--input", "no-such-file.csv")
    assert said.code == constants.EXIT_USAGE
    assert "no-such-file.csv: No such file or directory" in said.err
    assert "try: check the path" in said.err


def test_a_missing_file_with_a_like_name_beside_it_is_told_that_name(ready: Ready, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").touch()
    said = ready.device.run("classify", "--input", str(tmp_path / "row.csv"))
    assert said.code == constants.EXIT_USAGE
    assert f"try: did you mean {tmp_path / 'rows.csv'}?" in said.err


def test_a_model_that_was_changed_on_the_disk_does_not_answer(device: Device, releases: Releases) -> None:
    digest = device.install(releases["iris"])
    model = device.root / constants.RELEASES_DIR / digest / constants.MODEL_FILE
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(data)
    said = device.run("classify", input="1,2,3,4\n")
    assert said.code == constants.EXIT_REFUSED
    assert "no longer verifies" in said.err


def test_output_that_nobody_reads_ends_quietly(ready: Ready) -> None:
    with ready.device.popen(
        "classify", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.write(ready.csv().encode())
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141


def test_progress_is_shown_on_a_terminal_only(ready: Ready) -> None:
    """Rows arrive until the line is there, however fast they are answered."""
    terminal, theirs = pty.openpty()
    rows = ready.csv().encode() * 100
    argv, env = ready.device.argv("classify"), ready.device.env()
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=theirs, env=env) as process:
        os.close(theirs)
        assert process.stdin
        while not select.select([terminal], [], [], 0.1)[0]:
            process.stdin.write(rows)
        process.stdin.close()
        shown = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert process.returncode == 0
    assert "rows, " in shown
    assert "a second" in shown


def test_memory_is_constant_whatever_the_size_of_the_input(ready: Ready, tmp_path: Path) -> None:
    small, large = tmp_path / "small.csv", tmp_path / "large.csv"
    text = ready.csv()
    small.write_text(text * 1200)
    large.write_text(text * 12_000)
    program = (
        "import resource, sys; from device_agent.cli import main; code = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    peaks = []
    for path in (small, large):
        argv = ready.device.argv("classify", "--input", str(path))
        done = subprocess.run(
            [argv[0], "-c", program, *argv[3:]], capture_output=True, env=ready.device.env(), check=True
        )
        assert done.stdout.count(b"\n") == path.read_text().count("\n")
        peaks.append(int(done.stderr))
    assert peaks[1] < peaks[0] + 4096, f"{peaks} KiB: ten times the rows in the same memory"


@pytest.mark.parametrize("runtime", TFLITE)
def test_both_runtimes_answer_alike_and_are_named_in_the_report(ready: Ready, runtime: str) -> None:
    certificate = ready.device.ask("check", "--runtime", runtime, "--nonce", "42")
    assert certificate["runtime"]["name"] == runtime
    assert certificate["runtime"]["version"][0].isdigit()
    assert (certificate["different"], certificate["failures"], certificate["nonce"]) == (0, [], "42")
    said = ready.device.run("classify", "--runtime", runtime, input=ready.csv())
    assert said.out.splitlines() == ready.labels


def test_classify_imports_nothing_that_it_does_not_need(ready: Ready) -> None:
    program = (
        "import sys; from device_agent.cli import main; main(sys.argv[1:]);"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    argv = ready.device.argv("classify")
    done = subprocess.run(
        [argv[0], "-c", program, *argv[3:]], input=b"1,2,3,4\n", capture_output=True, env=ready.device.env(), check=True
    )
    loaded = set(done.stderr.decode().split())
    assert "tflite_runtime" in loaded or "ai_edge_litert" in loaded
    heavy = {"knnkit", "sklearn", "pandas", "tensorflow", "scipy", "asyncio", "importlib_metadata", "email"}
    assert loaded & heavy == set()


class TestFastAndSlowWayAgree:
    """A block that is parsed at once and the same block line by line give the same float32 numbers."""

    info = KnnInfo(
        name="n", k=1, n_features=3, feature_names=("a", "b", "c"), classes=(0, 1), metric="euclidean",
        weights="uniform", scale="none", n_train=2, batch=8, fingerprint="", minimum_runtime="1", versions={},
    )  # fmt: skip

    def parse(self, parser: Any, block: bytes) -> tuple[list[list[float]], list[int]]:
        parsed = parser(self.info.feature_names).parse(block)
        return parsed.rows.tolist(), [line for line, _ in parsed.errors.values()]

    def test_csv(self) -> None:
        rng = np.random.default_rng(7)
        values = rng.standard_normal((500, 3)) * 10.0 ** rng.integers(-30, 30, (500, 3))
        block = b"".join(b"%r,%r,%r\n" % tuple(row) for row in values.tolist())
        fast, no_errors = self.parse(CsvParser, block)
        slow, one_error = self.parse(CsvParser, block + b"bad\n")
        assert fast == slow == values.astype(np.float32).tolist()
        assert (no_errors, one_error) == ([], [501])

    def test_json(self) -> None:
        values = np.random.default_rng(7).standard_normal((100, 3))
        block = b"".join(json.dumps(row).encode() + b"\n" for row in values.tolist())
        fast, _ = self.parse(JsonParser, block)
        slow, errors = self.parse(JsonParser, block + b'{"a": 1}\n')
        assert fast == slow == values.astype(np.float32).tolist()
        assert errors == [101]

    @pytest.mark.parametrize(
        ("block", "good", "bad"),
        [
            (b"1,2,3\r\n4,5,6\r\n", 2, []),
            (b"1,2,3\n\n4,5,6\n", 2, []),
            (b" 1 , 2 ,3\n", 1, []),
            (b"1,2\n3,4,5,6\n", 0, [1, 2]),
            (b"1,2,3\n4 5,6,7\n", 1, [2]),
            (b"1,2,\n", 0, [1]),
            (b"1e5,-2.,+.5\n", 1, []),
            (b'"1","2","3"\n', 1, []),
            (b"0x1,2,3\n1,2,3\n", 1, [1]),
            (b"1,2,3-4\n", 0, [1]),
            (b"1,2,--3\n", 0, [1]),
            (b"\xff,2,3\n1,2,3\n", 1, [1]),
            (b"\xef\xbb\xbf1,2,3\n", 1, []),
            (b"c,b,a\n3,2,1\n1,2\n", 1, [3]),
            (b"1,2,3\n4, ,6\n", 1, [2]),
            (b"1,2,3\n4,5,\t\n", 1, [2]),
            (b"1,2,3\n4,5,6e\n", 1, [2]),
            (b"1,2,3\n4,5,6 7\n", 1, [2]),
            (b"1,2,3\n4,5,6.7.8\n", 1, [2]),
            (b"1,2,3\r\n \r\n4,5,6\r\n", 2, []),
        ],
    )
    def test_odd_csv(self, block: bytes, good: int, bad: list[int]) -> None:
        rows, errors = self.parse(CsvParser, block)
        assert (len(rows), errors) == (good, bad)

    @pytest.mark.parametrize(
        ("block", "good", "bad"),
        [
            (b"[1,2,3]\n[1,2],[3\n4]\n", 1, [2, 3]),
            (b"[1,2,3],[4,5,6]\n\n", 0, [1]),
            (b"[1,2,[3]]\n", 0, [1]),
            (b"[1,2,null]\n", 0, [1]),
            (b"[" * 100_000 + b"\n[1,2,3]\n", 1, [1]),
            (b"[1,2,1e400]\n", 0, [1]),
            (b"[1,2," + b"9" * 5000 + b"]\n", 0, [1]),
            (b"[1,2," + b"9" * 400 + b"]\n", 0, [1]),
            (b'{"a":1,"b":2,"c":3,"a":4}\n', 0, [1]),
        ],
    )
    def test_odd_json(self, block: bytes, good: int, bad: list[int]) -> None:
        rows, errors = self.parse(JsonParser, block)
        assert (len(rows), errors) == (good, bad)

    def test_lines_of_blanks_are_no_rows_of_a_model_with_one_feature(self) -> None:
        info = dataclasses.replace(self.info, n_features=1, feature_names=("a",))
        for block in (b"1\r\n\r\n2\r\n", b"1\n  \n2\n", b"1\n\t\n2\n"):
            assert CsvParser(info.feature_names).parse(block).rows.tolist() == [[1.0], [2.0]]

    def test_a_header_of_very_many_names_is_read_in_no_time(self) -> None:
        names = b",".join([b"a,b,c", *(b"%dx" % number for number in range(300_000)), b"7x"])
        with pytest.raises(BadInput, match="names the column '7x' twice"):
            CsvParser(self.info.feature_names, ignore_extra=True).parse(names + b"\n")


def test_the_agent_never_imports_knnkit() -> None:
    for path in (ROOT / "device_agent").rglob("*.py"):
        assert "import knnkit" not in path.read_text()
        assert "from knnkit" not in path.read_text()


def test_a_batch_says_at_its_end_that_another_release_answers_by_now(device: Device, releases: Releases) -> None:
    old, new = device.install(releases["iris"]), device.stage(releases["iris-next"])
    lines = b"5.1,3.5,1.4,0.2\n" * 20_000  # more than the pipe holds: it has loaded its release when it takes the last
    for word, now in ((("activate", new), new), (("rollback",), old)):
        process = device.popen("classify", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin
        process.stdin.write(lines)
        process.stdin.flush()
        device.ask(*word)
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out.count(b"\n")) == (0, 20_000)
        before = old if now == new else new
        said = f"release {before} gave all these answers; the device has switched to release {now}"
        assert err.decode() == f"device_agent: warning: {said}\n"
