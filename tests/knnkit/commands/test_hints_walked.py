"""Hints that need no SSH: each is provoked, typed as it stands, and leads out. See tests/docs/hints.txt."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.releases import Releases

from knnkit.cli import main

Type = Callable[..., tuple[int, str]]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Types a command in an empty folder; returns its exit code and all that it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str]:
        capsys.readouterr()
        try:
            code = main([*map(str, words)])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, "".join(capsys.readouterr())

    return run


def command(said: str, first: str, **filled: object) -> list[str]:
    """The words after `knnkit` of the command in a hint that begins with `first`."""
    found = re.search(rf"knnkit ({first}(?: (?:--[a-z-]+|[^\s`,;]*[./_A-Z][^\s`,;]*))*)", said)
    assert found, said
    return [str(filled.get(word, word)) for word in shlex.split(found[1])]


@pytest.mark.parametrize("words", ["build", "parity --data rows.csv --target local"])
def test_a_deploy_yml_is_pointed_out(typed: Type, words: str) -> None:
    Path("deploy.yml").write_text("model: {name: fruit, data: {sklearn: iris}}\n")
    code, said = typed(*words.split())
    assert code == 2
    assert said.rstrip().endswith(("did you mean deploy.yml?", "try: -c deploy.yml"))


def test_no_deploy_yaml(typed: Type) -> None:
    code, said = typed("build")
    assert code == 2
    assert typed(*command(said, "init"))[0] == 0
    code, after = typed("build")
    assert after != said
    assert "knnkit keygen" in after, "the next thing that is missing"
    assert typed(*command(after, "keygen"))[0] == 0
    assert Path("keys/signing.pem").exists()


def test_a_deploy_yaml_that_is_there(typed: Type) -> None:
    typed("init")
    code, said = typed("init")
    assert code == 2
    assert typed(*command(said, "init"))[0] == 0


def test_a_key_that_is_there(typed: Type) -> None:
    typed("keygen", "--out", "keys/signing")
    code, said = typed("keygen", "--out", "keys/signing")
    assert code == 2
    assert typed(*command(said, "keygen"))[0] == 0
    assert len(list(Path("keys").glob("*.pem"))) == 2


def test_a_release_that_nobody_signed(typed: Type, releases: Releases) -> None:
    release = releases.copy("iris", Path("my.release").absolute())
    (release / "model.sig").unlink()
    typed("keygen", "--out", "keys/signing")
    code, said = typed("verify", release, "--key", "keys/signing.pub")
    assert code != 0
    assert typed(*command(said, "sign", DIRECTORY=release), "--key", "keys/signing.pem")[0] == 0
    assert typed("verify", release, "--key", "keys/signing.pub")[0] == 0


def test_a_release_of_another_key(typed: Type, releases: Releases) -> None:
    release = shutil.copytree(releases["iris"], "my.release")
    typed("keygen", "--out", "keys/signing")
    code, said = typed("verify", release, "--key", "keys/signing.pub")
    assert code == 4
    assert typed(*command(said, "trust", PUB=releases.public_key))[0] == 0
    assert typed(*command(said, "verify", PUB=releases.public_key))[0] == 0


def test_a_release_without_a_key_to_compare(typed: Type, releases: Releases) -> None:
    shutil.copytree(releases["iris"], "my.release")
    shutil.copytree(releases.public_key.parent, "keys")
    code, said = typed("verify", "my.release")
    assert code == 2
    assert typed(*command(said, "verify"))[0] == 0


def test_an_order_that_is_written_to_a_file(typed: Type, releases: Releases) -> None:
    typed("keygen", "--out", "new")
    code, said = typed(*("trust", "--rotate", "new.pem", "--signing-key", releases.private_key, "--out", "order.json"))
    assert code == 0, said
    assert command(said, "trust --apply")[:3] == ["trust", "--apply", "order.json"]


def test_trust_with_a_target_in_place_of_a_host(typed: Type) -> None:
    code, said = typed("trust", "--target", "127.0.0.9:1")
    assert code == 2
    assert command(said, "trust") == ["trust", "127.0.0.9:1"]
    assert typed("trust", "127.0.0.9:1")[0] == 3, "it tries to reach the host"
    code, said = typed("trust")
    assert typed(*command(said, "trust"))[0] == 0


@pytest.mark.parametrize(
    "text", ["modle: {}\n", "just text\n", "- a\n", "model: {name: iris, data: {sklearn: iris}, kk: 3}\n"]
)
def test_a_deploy_yaml_that_is_none(typed: Type, text: str) -> None:
    Path("deploy.yaml").write_text(text)
    code, said = typed("build")
    assert code == 2
    named = re.search(r"knnkit (schema|init)", said)
    if named is None:
        assert "did you mean" in said
        return
    more = ["other.yaml"] if named[1] == "init" else []
    assert typed(named[1], *more)[0] == 0
