"""`knnkit inspect`, and all else that looks into a stranger's model file: a clear word, little memory, no time."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import resource
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.releases import Releases

from device_agent.shared.os_errors import explain
from device_agent.shared.protocol import constants, json_codec, model_info
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.release import model_file, zip_limits
from device_agent.shared.release.model_file import read_info
from device_agent.shared.release.npz import read_arrays
from knnkit import cli
from knnkit.data.files import members_that_fit

END = struct.Struct("<4s4H2LH")
KNN = constants.KNN_FILE


@pytest.fixture(scope="module")
def model(releases: Releases) -> bytes:
    return (releases["blobs"] / constants.MODEL_FILE).read_bytes()


def test_an_archive_without_a_model_is_told_without_quotes(releases: Releases, capsys: Any) -> None:
    path = releases["blobs"] / constants.GOLDEN_FILE
    assert cli.main(["inspect", str(path)]) == constants.EXIT_USAGE
    assert capsys.readouterr().err == (
        f"knnkit: {path}: not a knnkit model: it has no {KNN}\n"
        "  try: is it a model that `knnkit build` or TfKNN.export made?\n"
    )


def test_a_model_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"no\.tflite: No such file or directory") as caught:
        read_info(tmp_path / "no.tflite")
    assert caught.value.hint == "name the file of the model"


def ending(model: bytes, **changes: int) -> bytes:
    """The model with other claims in the last record of its archive."""
    names = ("disk", "start", "here", "count", "length", "offset", "comment")
    signature, *values = END.unpack(model[-END.size :])
    claims = dict(zip(names, values)) | changes
    return model[: -END.size] + END.pack(signature, *claims.values())


def entry(model: bytes, place: int, format: str, value: int, name: str = KNN) -> bytes:
    """The model with another value in the directory's entry of a member."""
    at = model.rindex(name.encode()) - 46 + place
    assert model[at - place : at - place + 4] == b"PK\1\2"
    data = bytearray(model)
    struct.pack_into(format, data, at, value)
    return bytes(data)


def with_members(model: bytes, members: list[tuple[str, bytes]], **options: Any) -> bytes:
    with zipfile.ZipFile(io.BytesIO(model)) as found:
        start = min(member.header_offset for member in found.infolist())
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **options) as target:
        for name, data in members:
            target.writestr(name, data)
    return model[:start] + out.getvalue()


def in_64_bits(model: bytes, count: int, length: int) -> bytes:
    """The model with an end of archive as larger archives have it."""
    _, _, _, _, _, _, offset, _ = END.unpack(model[-END.size :])
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(model) - END.size, 1)
    return model[: -END.size] + large + locator + model[-END.size :]


def other_members(model: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(model)) as found:
        return [(name, found.read(name)) for name in found.namelist()]


def doubled(model: bytes) -> bytes:
    members = other_members(model)
    with pytest.warns(UserWarning, match="Duplicate name"):
        return with_members(model, [*members, (KNN, b"{}")])


TRICKS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda model: b"", "does not end with a zip archive"),
    "cut in the middle": (lambda model: model[: len(model) // 2], "does not end with a zip archive"),
    "last byte missing": (lambda model: model[:-1], "does not end with a zip archive"),
    "text behind it": (lambda model: model + b"\n", "does not end with a zip archive"),
    "a comment": (lambda model: ending(model, comment=4) + b"note", "does not end with a zip archive"),
    "a comment that is another end": (
        lambda model: ending(model, comment=END.size) + model[-END.size :],
        "not a knnkit model",
    ),
    "many members": (lambda model: ending(model, here=65535, count=65535), "65,535 members; at most 64"),
    "a huge directory": (lambda model: ending(model, length=2**32 - 1), "a directory of 4,294,967,295 bytes"),
    "a directory as large as the file": (lambda model: ending(model, length=len(model)), "not a knnkit model"),
    "a directory elsewhere": (lambda model: ending(model, offset=2**32 - 1), "not a knnkit model"),
    "64 bits, many members": (lambda model: in_64_bits(model, 2**62, 100), "members; at most 64"),
    "64 bits, a huge directory": (lambda model: in_64_bits(model, 4, 2**62), "a directory of"),
    "one name twice": (doubled, "the archive inside has two members with the name knn.json"),
    "a member that is packed": (
        lambda model: with_members(model, other_members(model), compression=zipfile.ZIP_DEFLATED),
        "knn.json inside the model is compressed",
    ),
    "a member of an unknown method": (lambda model: entry(model, 10, "<H", 99), "is compressed"),
    "an encrypted member": (lambda model: entry(model, 8, "<H", 1), "knn.json inside the model is encrypted"),
    "a member of four gigabytes": (lambda model: entry(model, 24, "<L", 2**32 - 2), "at most 4,194,304 are allowed"),
    "a member larger than it is": (lambda model: entry(model, 24, "<L", 4_000_000), "entry says|not a knnkit model"),
    "a member packed to nothing": (lambda model: entry(model, 20, "<L", 0), "entry says|not a knnkit model"),
    "a member elsewhere": (lambda model: entry(model, 42, "<L", 0), "not a knnkit model"),
    "a member beyond the end": (lambda model: entry(model, 42, "<L", 2**32 - 2), "not a knnkit model"),
    "no knn.json": (lambda model: with_members(model, [("labels.txt", b"a")]), "it has no knn.json"),
    "knn.json in a folder": (
        lambda model: with_members(model, [("../" * 20_000 + KNN, b"{}")]),
        "it has no knn.json|a directory of",
    ),
    "a nested document": (lambda model: with_members(model, [(KNN, b"[" * 100_000)]), "nested deeper than 16"),
    "a document of blanks": (lambda model: with_members(model, [(KNN, b" " * 4_000_000)]), "damaged"),
}


@pytest.fixture(autouse=True)
def _in_little_memory_and_no_time() -> Iterator[None]:
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 * 1024
    assert time.process_time() - begun < 10.0


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_with_the_archive_is_refused_by_name(trick: str, model: bytes) -> None:
    make, said = TRICKS[trick]
    with pytest.raises(ModelUnusable, match=said):
        read_info(io.BytesIO(make(model)))


@pytest.mark.parametrize("trick", TRICKS)
def test_inspect_says_so_in_one_message(
    trick: str, model: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(TRICKS[trick][0](model))
    assert cli.main(["inspect", str(path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"knnkit: {path}")
    assert len(said.err.splitlines()) == 2


def test_a_file_that_is_larger_than_the_memory_is_refused_at_once(model: bytes, tmp_path: Path) -> None:
    """Its directory claims all of it; on the disk it takes no room."""
    path, size = tmp_path / "model.tflite", 2**40
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size - END.size)
        file.write(END.pack(b"PK\5\6", 0, 0, 4, 4, 2**32 - 1, 0, 0))
    assert os.stat(path).st_blocks * 512 < 2**20  # noqa: PTH116
    with pytest.raises(ModelUnusable, match="a directory of"):
        read_info(path)


def test_a_sound_archive_is_left_at_its_start(model: bytes) -> None:
    file = io.BytesIO(model)
    zip_limits.require_small(file)
    assert file.tell() == 0
    zip_limits.require_small(io.BytesIO(in_64_bits(model, 4, 300)))


def test_a_model_of_a_newer_knnkit_is_not_called_damaged(model: bytes) -> None:
    newer = json.dumps(json_codec.to_plain(read_info(io.BytesIO(model))) | {"schema": constants.SCHEMA + 1}).encode()
    made = with_members(model, [(name, newer if name == KNN else data) for name, data in other_members(model)])
    with pytest.raises(ModelUnusable, match="was written by a newer knnkit") as caught:
        read_info(io.BytesIO(made))
    assert "knnkit provision" in caught.value.hint


def test_a_set_of_arrays_with_very_many_members_is_refused_before_they_are_looked_at() -> None:
    entries = (b"PK\1\2" + bytes(42)) * 200_000
    end = END.pack(b"PK\5\6", 0, 0, 65535, 65535, len(entries), 0, 0)
    with pytest.raises(ValueError, match="at most 64 are read"):
        read_arrays(entries + end)


def directory(count: int, *, claimed: int, prefix: bytes = b"") -> bytes:
    """An archive of nothing but a directory of `count` empty entries, which says that it has `claimed` of them."""
    entries = (b"PK\1\2" + bytes(42)) * count
    return prefix + entries + END.pack(b"PK\5\6", 0, 0, claimed, claimed, len(entries), 0, 0)


def test_a_directory_that_has_more_members_than_it_claims_is_refused_before_they_become_objects(tmp_path: Path) -> None:
    """`zipfile` reads by the length of the directory, and makes half a kilobyte of each entry of 46 bytes."""
    path = tmp_path / "rows.npz"
    path.write_bytes(directory(360_000, claimed=1))
    begun = time.process_time()
    with pytest.raises(ValueError, match="has more members than the 1 that it states"):
        members_that_fit(path)
    assert time.process_time() - begun < 0.5
    with pytest.raises(ValueError, match="has more members than the 0 that it states"):
        read_arrays(directory(1400, claimed=0))


def test_a_directory_of_the_most_members_is_counted_in_no_time() -> None:
    begun = time.process_time()
    zip_limits.require_small(io.BytesIO(directory(65_535, claimed=65_535)), entries=65_535, directory=2**24)
    assert time.process_time() - begun < 2.0


def test_a_directory_that_claims_more_than_it_has_or_is_damaged_is_left_to_zipfile() -> None:
    zip_limits.require_small(io.BytesIO(directory(3, claimed=60)))
    zip_limits.require_small(io.BytesIO(b"x" * 46 + END.pack(b"PK\5\6", 0, 0, 1, 1, 46, 0, 0)))
    zip_limits.require_small(io.BytesIO(END.pack(b"PK\5\6", 0, 0, 1, 1, 46, 0, 0)))


def two_ends_in_64_bits(model: bytes, *, size: int) -> bytes:
    """The record before the locator is modest; the one that the locator names, as newer Pythons read, is not."""
    _, _, _, _, _, _, offset, _ = END.unpack(model[-END.size :])
    at = len(model) - END.size
    huge = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44 + 56, 45, 45, 0, 0, 4, 4, size, offset)
    modest = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 4, 4, 300, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    return model[:at] + huge + modest + locator + model[at:]


def test_an_archive_with_two_ends_in_64_bits_is_refused_since_pythons_differ_on_which_they_read(model: bytes) -> None:
    with pytest.raises(ValueError, match="two zip64 end records"):
        zip_limits.require_small(io.BytesIO(two_ends_in_64_bits(model, size=len(model))))


def test_an_end_in_64_bits_with_more_behind_it_is_refused(model: bytes) -> None:
    data = in_64_bits(model, 4, 300)
    at = data.rindex(b"PK\6\6") + 4
    with pytest.raises(ValueError, match="the end of the zip archive inside is damaged"):
        zip_limits.require_small(io.BytesIO(data[:at] + struct.pack("<Q", 45) + data[at + 8 :]))


def test_two_arrays_of_one_name_are_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("rows.npy", b"")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("rows.npy", b"")
    with pytest.raises(ValueError, match="the same name"):
        read_arrays(out.getvalue())


def test_what_a_strangers_release_says_of_itself_cannot_steer_the_terminal(
    releases: Releases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\nfake line\u202e"
    release = releases.copy("iris", tmp_path / "release")
    path = release / constants.MODEL_FILE
    data = path.read_bytes()
    info = read_info(path)
    changed = dataclasses.replace(
        info, name=evil, feature_names=(evil,) * 4, classes=(evil, "b", "c"), versions={evil: evil}, fingerprint=evil
    )
    others = [(name, member) for name, member in other_members(data) if name != KNN]
    path.write_bytes(with_members(data, [*others, (KNN, json_codec.dump_file(changed))]))
    assert cli.main(["inspect", str(release)]) == 0
    said = capsys.readouterr().out
    assert all(character.isprintable() for character in said.replace("\n", ""))
    assert not any(line.startswith("fake") for line in said.splitlines())


@pytest.mark.parametrize("seconds", [2**40, 253402300800, 2**62])
def test_a_date_that_no_calendar_reaches_is_told_all_the_same(
    seconds: int, releases: Releases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = releases.copy("iris", tmp_path / "release")
    path = release / constants.MANIFEST_FILE
    manifest = json_codec.loads(model_info.Manifest, path.read_bytes())
    path.write_bytes(json_codec.dump_file(dataclasses.replace(manifest, created=seconds, expires=seconds + 1)))
    assert cli.main(["inspect", str(release)]) == 0
    assert "created" in capsys.readouterr().out


def test_a_damaged_file_inside_a_model_is_named_with_what_to_type(model: bytes, tmp_path: Path, capsys: Any) -> None:
    path, data = tmp_path / "model.tflite", bytearray(model)
    with zipfile.ZipFile(io.BytesIO(model)) as members:
        data[members.getinfo("rows.npz").header_offset + 60] ^= 1
    path.write_bytes(data)
    assert cli.main(["card", str(path)]) == constants.EXIT_USAGE
    assert capsys.readouterr().err == (
        f"knnkit: {path}: rows.npz inside the model is damaged: Bad CRC-32 for file 'rows.npz'\n"
        "  try: knnkit build --force\n"
    )


def test_a_model_that_may_not_be_read_keeps_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(model_file, "open", refuse, raising=False)
    with pytest.raises(PermissionError) as refused:
        read_info("m.tflite")
    assert explain(refused.value)[:2] == ("no-permission", "m.tflite: Permission denied")
