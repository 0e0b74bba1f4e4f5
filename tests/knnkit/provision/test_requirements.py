"""Which packages for which board, which wheel for which package: by the table alone, nothing is asked or fetched."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

import knnkit.provision
from knnkit.errors import DeviceFailed, MissingDependency
from knnkit.provision import environment, wheel_cache
from knnkit.provision import remote_python as board_module
from knnkit.provision.agent_wheel import agent_wheel
from knnkit.provision.requirements import LITERT, PILLOW, TFLITE, Board, Recipe, check_python, recipe_for


def a_board(**said: Any) -> Board:
    values: dict[str, Any] = {
        "root": "/home/pi/.knnkit",
        "python": (3, 11),
        "python_full": "3.11.2",
        "executable": "/usr/bin/python3.11",
        "machine": "aarch64",
        "glibc": (2, 36),
        "venv": True,
        "pip": True,
        "system": {},
        "read_only": False,
        "writable": True,
        "nearest": "/home/pi",
        "disk_free": 1 << 30,
    }
    return Board(**{**values, **said})


ARMV7 = {"machine": "armv7l", "system": {"numpy": "1.24.2", "cryptography": "38.0.4"}}


@pytest.mark.parametrize(
    ("said", "runtime", "numpy"),
    [
        ({"python": (3, 10)}, TFLITE, "numpy==1."),
        ({"python": (3, 11)}, TFLITE, "numpy==1."),
        ({"python": (3, 12)}, LITERT, "numpy==2."),
        ({"python": (3, 13)}, LITERT, "numpy==2."),
        ({"python": (3, 13), "machine": "x86_64"}, LITERT, "numpy==2."),
        ({"python": (3, 14)}, LITERT, "numpy==2."),
        ({"python": (3, 14), "machine": "x86_64"}, LITERT, "numpy==2."),
    ],
)
def test_the_runtime_follows_from_the_python(said: dict[str, Any], runtime: str, numpy: str) -> None:
    recipe = recipe_for("board", a_board(**said))
    assert recipe.runtime == runtime
    assert any(pin.startswith(numpy) for pin in recipe.pins)
    assert not recipe.system_site


def test_a_32_bit_board_uses_the_distribution_s_numpy_and_cryptography() -> None:
    recipe = recipe_for("board", a_board(**ARMV7))
    assert recipe.pins == (TFLITE,)
    assert recipe.system_site


@pytest.mark.parametrize("had", [False, True])
@pytest.mark.parametrize("asked", [False, True])
def test_pillow_comes_with_a_model_of_pictures_and_stays(asked: bool, had: bool) -> None:
    found = environment.decide("board", a_board(pictures=had), "auto", {}, pictures=asked)
    assert (PILLOW in found.recipe.pins) is (asked or had)
    plain = environment.decide("board", a_board(), "auto", {})
    assert (found.digest == plain.digest) is not (asked or had)
    assert found.recipe.room >= plain.recipe.room
    small = environment.decide("board", a_board(**ARMV7), "auto", {}, pictures=asked)
    assert small.recipe.pins == (TFLITE,)  # with the distribution's packages, and no wheel of Pillow


@pytest.mark.parametrize(
    "said",
    [
        {**ARMV7, "python": (3, 13)},
        {**ARMV7, "python": (3, 14)},
        {"machine": "armv6l"},
        {"machine": "riscv64", "python": (3, 13)},
        {"glibc": None, "python": (3, 12)},
    ],
)
def test_a_board_without_a_tflite_wheel_searches_in_the_distribution_s_numpy(said: dict[str, Any]) -> None:
    recipe = recipe_for("board", a_board(**{"system": {"numpy": "2.2.4", "cryptography": "43.0.0"}, **said}))
    assert (recipe.runtime, recipe.pins, recipe.system_site) == ("numpy", (), True)
    assert wheel_cache.describe(recipe)
    assert wheel_cache.rank_of("device_agent-1-py3-none-any.whl", recipe) == 0
    for runtime in ("tflite_runtime", "ai_edge_litert"):
        with pytest.raises(DeviceFailed, match=r"no |needs glibc") as caught:
            recipe_for("board", a_board(**{"system": {}, **said}), runtime)
        assert "--runtime numpy" in caught.value.hint


def test_numpy_alone_can_be_chosen_for_any_board() -> None:
    for python in ((3, 10), (3, 11), (3, 14)):
        recipe = recipe_for("board", a_board(python=python), "numpy")
        assert recipe.pins[0].startswith("numpy==2.")
        assert not recipe.system_site
    assert recipe_for("board", a_board(**ARMV7), "numpy").pins == ()


@pytest.mark.parametrize(
    ("said", "reason", "told"),
    [
        ({"python": (3, 9)}, "python-unfit", "too old"),
        ({"python": (3, 15)}, "python-unfit", "too new"),
        ({"venv": False}, "no-venv", "no venv module"),
        ({"machine": "armv6l"}, "no-system-package", "armv6l needs the distribution's python3-numpy and python3-cr"),
        ({"glibc": None, "machine": "x86_64"}, "no-system-package", "py3-numpy and py3-cryptography"),
        (
            {**ARMV7, "system": {"numpy": None, "cryptography": None}},
            "no-system-package",
            "python3-numpy and python3-cr",
        ),
        ({**ARMV7, "system": {"numpy": "2.2.4", "cryptography": "43.0.0"}}, "no-system-package", "python3-numpy"),
    ],
)
def test_a_board_that_cannot_run_the_agent_is_told_why_and_what_to_do(
    said: dict[str, Any], reason: str, told: str
) -> None:
    with pytest.raises(DeviceFailed) as caught:
        recipe_for("greenhouse-1", a_board(**said))
    assert caught.value.reason == reason
    assert str(caught.value).startswith("greenhouse-1: ")
    assert told in str(caught.value)
    assert caught.value.hint


def test_a_board_without_python_is_told_how_to_get_one() -> None:
    with pytest.raises(DeviceFailed, match="no python3") as caught:
        check_python("greenhouse-1", None)
    assert "apt install python3" in caught.value.hint


@pytest.mark.parametrize(
    ("said", "bits", "machine"),
    [("aarch64", 32, "armv7l"), ("aarch64", 64, "aarch64"), ("armv7l", 32, "armv7l"), ("armv6l", 32, "armv6l")],
)
def test_a_32_bit_system_under_a_64_bit_kernel_is_known_for_what_it_is(said: str, bits: int, machine: str) -> None:
    answer = dict.fromkeys(("root", "executable", "nearest", "glibc"), "") | {"system": {}, "environments": {}}
    answer |= {"trusted": {}, "current": None, "tidy": True, "disk_free": 1, "python": [3, 11, 2], "venv": 1, "pip": 1}
    answer |= {"linked": None, "read_only": False, "writable": True, "machine": said, "bits": bits}
    assert board_module._board(answer).machine == machine


PI = Recipe("aarch64", (3, 11), (2, 36), ())


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("numpy-1.26.4-cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64.whl", True),
        ("cryptography-50.0.2-cp311-abi3-manylinux_2_34_aarch64.whl", True),
        ("cryptography-46.0.3-cp38-abi3-manylinux_2_28_aarch64.whl", True),
        ("pycparser-2.23-py3-none-any.whl", True),
        ("tool-1.0-1-py2.py3-none-any.whl", True),
        ("cryptography-50.0.2-cp312-abi3-manylinux_2_34_aarch64.whl", False),  # for a later Python
        ("numpy-1.26.4-cp312-cp312-manylinux_2_17_aarch64.whl", False),
        ("numpy-1.26.4-cp311-cp311-manylinux_2_17_x86_64.whl", False),
        ("numpy-1.26.4-cp311-cp311-manylinux_2_39_aarch64.whl", False),  # for a later C library
        ("numpy-1.26.4-cp311-cp311-musllinux_1_1_aarch64.whl", False),
        ("numpy-1.26.4-cp311-cp311t-manylinux_2_17_aarch64.whl", False),
        ("numpy-1.26.4.tar.gz", False),
        ("numpy-1.26.4-cp311-cp311-manylinux_2_17_aarch64.whl.part", False),
    ],
)
def test_a_wheel_fits_a_board_by_its_tags(name: str, fits: bool) -> None:
    assert (wheel_cache.rank_of(name, PI) is not None) is fits


def test_of_several_wheels_the_one_for_the_newest_c_library_is_taken() -> None:
    names = [f"cryptography-50.0.2-cp311-abi3-manylinux_2_{minor}_aarch64.whl" for minor in (28, 34, 39)]
    assert wheel_cache.best("cryptography==50.0.2", names, PI) == names[1]


def test_a_longer_version_or_name_is_another_package() -> None:
    names = ["numpy-1.26.40-py3-none-any.whl", "numpy_extra-1.26.4-py3-none-any.whl"]
    assert wheel_cache.best("numpy==1.26.4", names, PI) is None


def test_names_are_compared_as_the_index_does() -> None:
    name = "Typing_Extensions-4.15.0-py3-none-any.whl"
    assert wheel_cache.best("typing-extensions==4.15.0", [name], PI) == name


def test_wheels_that_are_there_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pycparser-2.23-py3-none-any.whl").write_bytes(b"")
    monkeypatch.setattr(wheel_cache.subprocess, "run", lambda *a, **k: pytest.fail("nothing is to be fetched"))
    assert [path.name for path in wheel_cache.fetch(["pycparser==2.23"], PI, tmp_path)] == [
        "pycparser-2.23-py3-none-any.whl"
    ]


def test_without_pip_the_missing_wheel_and_the_folder_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheel_cache.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"numpy==1\.26\.4") as caught:
        wheel_cache.fetch(["numpy==1.26.4"], PI, tmp_path)
    assert str(tmp_path) in caught.value.hint


def test_a_wheel_that_cannot_be_had_is_named_with_the_board_s_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(DeviceFailed, match=r"numpy==1\.26\.4 for aarch64, Python 3\.11, glibc 2\.36") as caught:
        wheel_cache.fetch(["numpy==1.26.4"], PI, tmp_path)
    assert caught.value.reason == "no-wheel"
    assert list(tmp_path.iterdir()) == []


def test_the_folder_comes_from_the_environment_or_the_user_s_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere/cache")
    monkeypatch.delenv("KNNKIT_WHEELS", raising=False)
    assert wheel_cache.default_folder() == Path("/somewhere/cache/knnkit/wheels")
    monkeypatch.setenv("KNNKIT_WHEELS", "/elsewhere")
    assert wheel_cache.default_folder() == Path("/elsewhere")


def test_the_agent_s_wheel_is_the_same_bytes_every_time_and_holds_every_module() -> None:
    name, content = agent_wheel()
    assert agent_wheel() == (name, content)
    with zipfile.ZipFile(BytesIO(content)) as archive:
        held = {entry for entry in archive.namelist() if entry.startswith("device_agent/")}
        recorded = archive.read(next(n for n in archive.namelist() if n.endswith("/RECORD"))).decode()
    source = Path(knnkit.provision.__file__).parents[2] / "device_agent"
    wanted = {f"device_agent/{path.relative_to(source).as_posix()}" for path in source.rglob("*.py")}
    assert held == wanted | {"device_agent/py.typed"}
    assert all(f"{entry},sha256=" in recorded for entry in held)


def test_a_root_with_a_colon_is_refused_before_anything_is_sent() -> None:
    """`venv` refuses it: the PATH of an activated environment could not name it."""
    board_module.check_writable("pi", a_board())
    with pytest.raises(DeviceFailed, match="pi: /srv/a:b has a colon") as caught:
        board_module.check_writable("pi", a_board(root="/srv/a:b"))
    assert (caught.value.reason, caught.value.hint) == ("bad-root", "choose another root")
