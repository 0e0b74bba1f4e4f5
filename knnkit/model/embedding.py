"""Embeds raw inputs on the host.

TensorFlow runs the stages in a separate process, so that a damaged file cannot crash the build. Devices are
checked to compute the same rows. Reads no raw file.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.input_info import Image, Input, Stage
from device_agent.shared.protocol.record import replace
from device_agent.shared.safe_files import read_small
from knnkit.data.patterns import unreadable
from knnkit.errors import FILE, BuildError
from knnkit.model.tflite.flatbuffer import IDENTIFIER, input_shape

_STAGES = "look at `stages` in deploy.yaml"
#: Start of the names of computed features: embedding_0, embedding_1, ...
PREFIX = "embedding"


@dataclass(frozen=True)
class Embedded:
    """The (n, n_features) float32 `rows` computed from raw inputs, and `input`: the stages, with their input shapes."""

    rows: NDArray[np.float32]
    input: Input

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(f"{PREFIX}_{number}" for number in range(self.rows.shape[1]))


def read_stages(input: Input, paths: Sequence[Path], first: bytes | None = None) -> tuple[Input, dict[str, bytes]]:
    """Reads the stage files `paths`. Returns `input` with their digests, and file name in a release -> bytes.

    `first` holds the bytes of an additional stage, which runs before all stages of `input`; None: there is none.

    Raises:
        BuildError: there are too many stages; or a file cannot be read, is too large, is not a .tflite, or takes
            pictures of another size than `input.image`.
    """
    own = {} if first is None else {constants.STAGE_FILES[0]: first}
    if len(input.stages) > (most := constants.MAX_STAGES - len(own)):
        hint = f"at most {most} stages beside `features`, which are a stage, too"
        raise BuildError(f"input has {len(input.stages)} stages", hint=hint, key="input/stages")
    files: dict[str, bytes] = {**own}
    for name, path in zip(constants.STAGE_FILES[len(own) :], paths):
        try:
            files[name] = read_small(path, constants.MAX_STAGE, follow=True)
        except OSError as error:
            raise unreadable(path, error, (".tflite",), BuildError) from None
        if len(files[name]) > constants.MAX_STAGE:
            raise BuildError(f"{path}: a stage file may have at most {constants.MAX_STAGE:,} bytes", key=FILE)
        if files[name][4:8] != IDENTIFIER:
            hint = "stages: [FILE.tflite], a file written by tf.lite.TFLiteConverter"
            raise BuildError(f"{path}: it is not a .tflite file", hint=hint, key=FILE)
    stages = [
        replace(stage, file=name, sha256=hashlib.sha256(data).hexdigest())
        for stage, (name, data) in zip((*(Stage("", "") for _ in own), *input.stages), files.items())
    ]
    if input.image is not None and paths and stages[0].frames is None:
        _require_size(input.image, paths[0], files[stages[0].file])
    return replace(input, stages=tuple(stages)), files


def _require_size(image: Image, path: Path, data: bytes) -> None:
    shape = input_shape(data)
    if len(shape) == 4 and image.channels == shape[1] != shape[3] and image.channels > 1:
        said = (
            f"{path} takes the channels before height and width, and `image` makes {_by((*image.size, image.channels))}"
        )
        hint = "convert it with channels last, as onnx2tf does, or with tf.keras.layers.Permute((3, 1, 2)) in front"
        raise BuildError(said, hint=hint)
    if len(shape) != 4 or shape[3] not in (1, 3) or min(shape[1:]) < 1:
        return  # not a network of pictures
    if shape[1:] != (made := (*image.size, image.channels)):
        takes, found = _by(shape[1:]), _by(made)
        hint = f"size: [{shape[1]}, {shape[2]}], channels: {shape[3]} under image: in deploy.yaml"
        raise BuildError(f"{path} takes pictures of {takes} numbers, but `image` makes {found}", hint=hint)


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def embed(
    input: Input,
    files: Mapping[str, bytes],
    inputs: Iterable[NDArray[Any]],
    name: Callable[[int], str] = "row {}".format,
) -> Embedded:
    """Returns the feature rows that the stages compute from raw arrays.

    Args:
        input: description of the stages.
        files: file name -> bytes of each stage.
        inputs: raw arrays; read one at a time.
        name: maps the number of an array (from 0) to its name in error messages.

    Raises:
        BuildError: a stage cannot be loaded, or an array does not fit a stage.
    """
    with tempfile.TemporaryDirectory(prefix="knnkit-stages-") as folder:
        for stage, data in files.items():
            (Path(folder) / stage).write_bytes(data)
        out = str(Path(folder) / "rows")
        said = _run([json_codec.dumps(input), folder, out], inputs)
        try:
            rows = np.load(f"{out}.npy", allow_pickle=False)
            return Embedded(rows, json_codec.loads(Input, Path(f"{out}.json").read_text()))
        except OSError:
            text, _, hint = said.partition("\t")
            said = _explained(text, name)
            raise BuildError(said, hint=hint or (_STAGES if "stage" in said else "")) from None


_PROGRAM = """
import json, sys
package, *others = json.loads(sys.argv[1])
sys.path.insert(0, package)
sys.path.extend(others)  # last: a script's folder may hold a file with the name of a standard module
from knnkit.model.tflite.run_stages import main
sys.exit(main(*sys.argv[2:]))
"""


def _run(arguments: list[str], inputs: Iterable[NDArray[Any]]) -> str:
    """Sends `inputs` to a child process that embeds them; returns "", or "NUMBER MESSAGE<tab>HINT" if it fails.

    NUMBER is that of the input at fault, -1 for a stage.
    """
    path = json_codec.dumps([str(Path(__file__).parents[2]), *(entry for entry in sys.path if entry)])
    command = [sys.executable, "-I", "-c", _PROGRAM, path, *arguments]
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
                _send(pipe, inputs)
            code = child.wait()
        finally:
            child.kill()
            child.wait()
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
    return said if code >= 0 else f"-1 TensorFlow crashed ({code}), so the file of a stage may be damaged"


def _send(pipe: IO[bytes], inputs: Iterable[NDArray[Any]]) -> None:
    for values in inputs:
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(values), allow_pickle=False)
        pipe.write(len(buffer.getbuffer()).to_bytes(8, "little"))
        pipe.write(buffer.getbuffer())


def _explained(said: str, name: Callable[[int], str]) -> str:
    number, _, text = said.partition(" ")
    if not number.lstrip("-").isdigit():
        return f"the stages cannot be run: {said}"
    return f"the stages: {text}" if number == "-1" else f"{name(int(number))}: {text}"
