"""An error about a key file that deploy.yaml names shows the line that names it, in every command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.releases import Releases

from knnkit import cli

MODEL = "model:\n  name: iris\n  data: {sklearn: iris}\n"
WAYS = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "a folder": lambda path: path.mkdir(),
    "junk": lambda path: path.write_bytes(b"\xff\xfe junk"),
}


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("key: 'my keys/a.pem'", "build"),
        ("key: 'my keys/a.pem'", "sign dist"),
        ("key: 'my keys/a.pem'", "trust --revoke sha256:{0} --target local"),
        ("trusted: ['my keys/a.pem']", "verify dist"),
        ("trusted: ['my keys/a.pem']", "provision --target local --root here"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_named_with_its_line(
    how: str,
    key: str,
    words: str,
    releases: Releases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(releases["blobs"], "dist")
    Path("my keys").mkdir()
    WAYS[how](path := Path("my keys/a.pem"))
    if path.exists():
        path.chmod(0o600 if path.is_file() else 0o700)
    Path("deploy.yaml").write_text(f"{MODEL}signing:\n  # the team's\n  {key}\n")
    code = cli.main(words.format("0" * 64).split())
    said = capsys.readouterr().err
    assert code == 2, said
    assert said.startswith("knnkit: deploy.yaml:6: "), said
    assert f"    6 |   {key}" in said
    assert "try: " in said


def test_keygen_takes_the_name_that_deploy_yaml_has(tmp_path: Path) -> None:
    assert cli.main(["keygen", "--out", str(tmp_path / "keys" / "a.b.pem")]) == 0
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["a.b.pem", "a.b.pub"]
    assert cli.main(["keygen", "--out", str(tmp_path / "keys" / "a.b")]) == 2, "it is there"
