"""Boards whose root lies on an overlay, in memory, on a noexec or a foreign disk; with one session; with a bad card."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import sshd
from support.board_roots import copy_board
from support.releases import Releases
from support.tiny import make_tiny_wheels, want_tiny_wheels

from device_agent.shared.protocol import constants
from knnkit.cli import main

Said = dict[str, object]
needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root, to mount file systems"
)


@pytest.fixture(scope="module")
def board(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with an agent and no release."""
    return copy_board(prepared, tmp_path_factory.mktemp("board") / "root")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts file systems, and takes them away in the end."""
    mounted: list[Path] = []

    def make(kind: str, options: str = "", what: str = "none", at: Path | None = None) -> Path:
        point = at or tmp_path / f"mount{len(mounted)}"
        point.mkdir(exist_ok=True)
        flags = ["-o", options] if options else []
        done = subprocess.run(["mount", "-t", kind, *flags, what, str(point)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount {kind} here: {done.stderr}")
        mounted.append(point)
        return point

    yield make
    for point in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(point)], check=True)


@pytest.fixture
def overlay(mount: Callable[..., Path], tmp_path: Path) -> Callable[[Path], Path]:
    """Mounts an overlay over a folder, as raspi-config does: what is written lies in memory."""

    def make(lower: Path) -> Path:
        upper = mount("tmpfs")
        for name in ("upper", "work"):
            (upper / name).mkdir()
        return mount("overlay", f"lowerdir={lower},upperdir={upper}/upper,workdir={upper}/work")

    return make


@pytest.fixture
def knnkit(server: sshd.Sshd, no_ssh_config: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs a command against a root behind the suite's server; returns what it reports of the device."""

    def run(root: Path, *words: object, code: int = 0, on: sshd.Sshd = server) -> Said:
        capsys.readouterr()
        where = ["--target", f"{on.user}@{on.host}:{on.port}", "--root", root, "-i", on.identity]
        where += ["--known-hosts", on.known_hosts, "--ssh-config", no_ssh_config]
        found = main([*map(str, [*words, *where]), "--json"])
        out, err = capsys.readouterr()
        assert found == code, (found, out[-3000:], err[-3000:])
        device: Said = json.loads(out)["devices"][0]
        return device

    return run


def findings(said: Said) -> dict[str, tuple[str, str, str]]:
    """Name -> level, message and what mends it, of what is not well."""
    found = json.loads(str(said["details"]))["findings"]
    return {each["name"]: (each["level"], each["message"], each["mend"]) for each in found if each["level"] != "ok"}


# --- overlays, memory, noexec -------------------------------------------------------------------------------------
@needs_mounts
def test_deploys_prune_rollback_and_remove_on_an_overlay(
    board: Path, releases: Releases, overlay: Callable[[Path], Path], knnkit: Callable[..., Said], tmp_path: Path
) -> None:
    def release(sequence: int) -> Path:
        out = tmp_path / f"release{sequence}"
        return releases.variant("iris", out, sequence=sequence, version=f"1.{sequence}.0")

    below = tmp_path / "below"
    below.mkdir()
    root = copy_board(board, below / "root")
    for sequence in range(100, 100 + constants.KEEP_RELEASES):
        knnkit(root, "deploy", "--release", release(sequence))
    root = overlay(below) / "root"
    for sequence in range(200, 203 + constants.KEEP_RELEASES):  # the last ones replace releases of the upper layer
        said = knnkit(root, "deploy", "--release", release(sequence))
        assert said["outcome"] == "committed"
        assert "lost at the next boot" in str(said["warnings"])
        assert len(list((root / "releases").iterdir())) <= constants.KEEP_RELEASES
    agent = [str(root / "venv/bin/python"), "-I", "-m", "device_agent", "--root", str(root)]
    subprocess.run([*agent, "prune", "--keep", "2"], check=True, capture_output=True)
    assert knnkit(root, "rollback")["release"]["version"] == f"1.{sequence - 1}.0"  # type: ignore[index]
    assert findings(knnkit(root, "doctor"))["root"][0] == "warning"
    said = knnkit(root, "provision", "--remove")
    assert said["details"] == '{"removed":true}'
    assert not root.exists() or list(root.iterdir()) == []


@needs_mounts
def test_environments_of_a_lower_layer_are_replaced_and_tidied(
    overlay: Callable[[Path], Path], knnkit: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three environments and a place for wheels that a broken connection left, all of them in the lower layer."""
    wheels = make_tiny_wheels(tmp_path / "wheels")
    want_tiny_wheels(monkeypatch, wheels)
    below = tmp_path / "below"
    below.mkdir()
    root = below / "root"
    asked = ("provision", "--offline", "--wheels", wheels)
    for version in ("1.1", "1.2"):
        monkeypatch.setattr("device_agent.__version__", version)
        knnkit(root, *asked)
    (root / "venvs" / "incoming.1.1.aaaaaaaa").mkdir()
    root = overlay(below) / "root"
    monkeypatch.setattr("device_agent.__version__", "1.3")
    knnkit(root, *asked)
    kept = {path.name for path in (root / "venvs").iterdir()}
    assert len(kept) == 2
    assert not [name for name in kept if "." in name]


@needs_mounts
def test_a_root_in_memory_is_warned_of(
    board: Path, releases: Releases, mount: Callable[..., Path], knnkit: Callable[..., Said]
) -> None:
    root = mount("tmpfs") / "my root"
    shutil.copytree(board, root, symlinks=True)
    said = knnkit(root, "deploy", "--release", releases["iris"])
    assert f"{root} lies in memory" in str(said["warnings"])
    level, message, mend = findings(knnkit(root, "doctor"))["root"]
    assert (level, bool(mend)) == ("warning", True)
    assert "lost at the next boot" in message


@needs_mounts
@pytest.mark.parametrize("name", ["plain", "with a blank"])
def test_a_noexec_root_is_refused_before_anything_is_sent(
    board: Path, releases: Releases, mount: Callable[..., Path], knnkit: Callable[..., Said], tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    point = mount("tmpfs", "noexec", at=tmp_path / name)
    remount = "sudo mount -o remount,exec "
    for words in (("deploy", "--release", releases["iris"]), ("provision", "--offline")):
        said = knnkit(point / "root", *words, code=1)
        assert said["reason"] == "noexec"
        assert "mounted noexec" in str(said["message"])
        assert remount in str(said["hint"])
        assert str(point) in str(said["hint"])
    assert list(point.iterdir()) == []
    shutil.copytree(board, point / "root", symlinks=True)  # it comes later: a line in fstab, and a restart
    level, message, mend = findings(knnkit(point / "root", "doctor", code=1))["root"]
    assert level == "error"
    assert "mounted noexec" in message
    assert "remount,exec" in mend
    assert knnkit(point / "root", "deploy", "--release", releases["iris"], code=1)["reason"] == "noexec"
    assert not (point / "root" / "incoming").exists() or not list((point / "root" / "incoming").iterdir())


@pytest.fixture
def image(mount: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Makes a disk in a file with `mkfs` and mounts it."""

    def make(kind: str, *options: str, size: int = 512 << 20) -> Path:
        if shutil.which(f"mkfs.{kind}") is None:
            pytest.skip(f"needs mkfs.{kind}")
        disk = tmp_path / f"{kind}.img"
        with disk.open("wb") as file:
            file.truncate(size)
        subprocess.run([f"mkfs.{kind}", *options, str(disk)], check=True, capture_output=True)
        return mount(kind, "loop", str(disk))

    return make


@needs_mounts
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_root_on_a_disk_of_its_own(
    kind: str, board: Path, releases: Releases, image: Callable[..., Path], knnkit: Callable[..., Said]
) -> None:
    point = image(kind)
    root = point / "root"
    shutil.copytree(board, root, symlinks=True)
    for name in ("iris", "iris-next"):
        assert knnkit(root, "deploy", "--release", releases[name])["outcome"] == "committed"
    assert knnkit(root, "rollback")["release"]["version"] == "1.0.0"  # type: ignore[index]
    subprocess.run(["mount", "-o", "remount,ro", str(point)], check=True)
    said = knnkit(root, "deploy", "--release", releases["iris-next"], code=1)
    assert "read-only" in str(said["message"])
    assert "remount,rw" in str(said["hint"])
    knnkit(root, "status")
    assert "read-only" in str(findings(knnkit(root, "doctor", code=1))["root"])
    subprocess.run(["mount", "-o", "remount,rw", str(point)], check=True)
    assert knnkit(root, "provision", "--remove")["details"] == '{"removed":true}'


@needs_mounts
def test_a_disk_without_inodes_is_named_at_provision_and_at_deploy(
    board: Path, releases: Releases, image: Callable[..., Path], knnkit: Callable[..., Said]
) -> None:
    few = image("ext4", "-q", "-N", "200")
    said = knnkit(few / "root", "provision", "--offline", "--key", releases.public_key, code=1)
    assert "no inodes are left" in str(said["message"])
    assert str(said["hint"]).startswith("df -i ")


@needs_mounts
def test_inodes_that_run_out_under_a_release_are_named(
    board: Path, releases: Releases, image: Callable[..., Path], knnkit: Callable[..., Said]
) -> None:
    point = image("ext4", "-q", "-N", "8000")
    root = point / "root"
    shutil.copytree(board, root, symlinks=True)
    knnkit(root, "deploy", "--release", releases["iris"])
    taken = point / "taken"
    taken.mkdir()
    for number in range(os.statvfs(point).f_favail):
        (taken / str(number)).touch()
    said = knnkit(root, "deploy", "--release", releases["iris-next"], code=1)
    assert "inode" in str(said["message"]) + str(said["hint"])
    shutil.rmtree(taken)
    assert knnkit(root, "deploy", "--release", releases["iris-next"])["outcome"] == "committed"


@needs_mounts
@pytest.mark.skipif(shutil.which("fusefat") is None, reason="needs fusefat, to mount a disk of Windows")
def test_a_disk_of_windows_is_refused_with_the_cause(
    releases: Releases, knnkit: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = make_tiny_wheels(tmp_path / "wheels")
    want_tiny_wheels(monkeypatch, wheels)
    disk, point = tmp_path / "disk", tmp_path / "point"
    with disk.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.vfat", str(disk)], check=True, capture_output=True)
    point.mkdir()
    mounted = subprocess.run(["fusefat", "-o", "rw+", str(disk), str(point)], capture_output=True)
    if mounted.returncode or not point.is_mount():
        pytest.skip("cannot mount with fusefat here")
    try:
        said = knnkit(point / "root", "provision", "--offline", "--wheels", wheels, code=1)
        assert "no links" in str(said["message"])
        assert "such as ext4" in str(said["hint"])
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


# --- remove -------------------------------------------------------------------------------------------------------
@needs_mounts
@pytest.mark.parametrize("place", ["mount", "link to a mount", "disk with lost+found"])
def test_a_root_that_is_a_mount_point_is_emptied(
    board: Path, mount: Callable[..., Path], knnkit: Callable[..., Said], tmp_path: Path, place: str
) -> None:
    point = mount("tmpfs")
    shutil.copytree(board, point, symlinks=True, dirs_exist_ok=True)
    if place == "disk with lost+found":
        (point / "lost+found").mkdir()
    root = point
    if place == "link to a mount":
        root = tmp_path / "link"
        root.symlink_to(point)
    said = knnkit(root, "provision", "--remove")
    assert said["details"] == '{"removed":true}'
    assert "it is a mount point" in str(said["warnings"])
    assert [path.name for path in point.iterdir() if path.name != "lost+found"] == []
    assert not root.is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder to somebody else")
def test_a_root_whose_parent_is_not_the_login_s_is_emptied(board: Path, tmp_path: Path) -> None:
    parent = Path("/var/tmp") / f"knnkit-{os.getpid()}"
    parent.mkdir(mode=0o755)
    try:
        root = parent / "root"
        shutil.copytree(board, root, symlinks=True)
        for path in (root, *root.rglob("*")):
            os.chown(path, 65534, 65534, follow_symlinks=False)
        script = (
            "import json, os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); "
            "from device_agent.bootstrap.remove import remove; from knnkit.provision.install import _KNOWN; "
            "print(json.dumps(remove({'root': sys.argv[1], 'known': list(_KNOWN)})))"
        )
        said = remove_as_somebody(script, root)
        assert said["removed"]
        assert said["left"] == [f"{root}: the login user may not write {parent}"]
        assert list(root.iterdir()) == []
        (root / "venvs" / "theirs").mkdir(parents=True)
        (root / "venvs" / "theirs" / "file").write_text("root's")
        (root / "trust").mkdir()
        os.chown(root / "trust", 65534, 65534)
        said = remove_as_somebody(script, root)
        assert not (root / "trust").exists()
        assert any("file" in line for line in said["left"])
    finally:
        shutil.rmtree(parent)


def remove_as_somebody(script: str, root: Path) -> dict[str, list[str]]:
    import sys

    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); import knnkit.provision; {script}"
    done = subprocess.run([sys.executable, "-c", program, str(root)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


# --- sessions and command lines -----------------------------------------------------------------------------------
@pytest.mark.parametrize("sessions", [1, 2])
def test_a_first_deploy_needs_one_session_at_a_time(
    sessions: int, releases: Releases, knnkit: Callable[..., Said], tmp_path: Path, no_ssh_config: Path
) -> None:
    with sshd.running(tmp_path / "server", extra=f"MaxSessions {sessions}") as server:
        words = ["deploy", "--release", releases["iris"], "--key", releases.public_key, "--offline"]
        assert knnkit(tmp_path / "root", *words, on=server)["outcome"] == "committed"


def test_a_server_without_sessions_is_told_of_max_sessions(
    knnkit: Callable[..., Said], tmp_path: Path, no_ssh_config: Path
) -> None:
    with sshd.running(tmp_path / "server", extra="MaxSessions 0") as server:
        said = knnkit(tmp_path / "root", "status", on=server, code=1)
    assert said["reason"] == "no-session"
    assert "MaxSessions" in str(said["message"]) + str(said["hint"])


def test_no_command_line_grows_with_keys_wheels_or_files(
    knnkit: Callable[..., Said], releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropbear takes 9,000 bytes of one."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    keys: list[object] = []
    for number in range(40):
        path = tmp_path / f"key{number}.pub"
        public = ec.generate_private_key(ec.SECP256R1()).public_key()
        kind = serialization.PublicFormat.SubjectPublicKeyInfo
        path.write_bytes(public.public_bytes(serialization.Encoding.PEM, kind))
        keys += ["--key", path]
    log = tmp_path / "lengths"
    login = tmp_path / "login"
    login.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "${{#SSH_ORIGINAL_COMMAND}}" >> {log}\nexec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    login.chmod(0o755)
    root = tmp_path / ("deep" * 50) / "root"
    with sshd.running(tmp_path / "server", extra=f"ForceCommand {login}") as server:
        said = knnkit(root, "provision", "--offline", "--key", releases.public_key, *keys, on=server)
        assert said["outcome"] == "answered"
        assert len(list((root / "trust").glob("*.pem"))) == 41
        for words in (("deploy", "--release", releases["iris"]), ("parity",), ("rollback",), ("trust", "--keys")):
            knnkit(root, *words, on=server, code=1 if words == ("rollback",) else 0)
    lengths = [int(line) for line in log.read_text().split()]
    assert len(lengths) > 10
    assert max(lengths) < 3000, lengths


# --- a bad card ---------------------------------------------------------------------------------------------------
def truncated(path: Path) -> bytes:
    return path.read_bytes()[: path.stat().st_size // 2]


def turned(path: Path) -> bytes:
    data = path.read_bytes()
    return data[:4096] + bytes(byte ^ 0x55 for byte in data[4096:])


def emptied(path: Path) -> bytes:
    return b""


NUMPY = ("numpy", "numpy/core/_multiarray_umath*.so")
RUNTIME = ("runtime", "*/_pywrap*interpreter*.so")
CRYPTOGRAPHY = ("cryptography", "cryptography/hazmat/bindings/_rust*.so")


@pytest.mark.parametrize(  # each library twice, each harm twice: the repair is one and the same
    ("package", "pattern", "harm"),
    [
        (*NUMPY, truncated), (*NUMPY, turned), (*RUNTIME, turned),
        (*RUNTIME, emptied), (*CRYPTOGRAPHY, emptied), (*CRYPTOGRAPHY, truncated),
    ],
)  # fmt: skip
def test_a_damaged_library_is_named_and_repaired(
    board: Path, releases: Releases, knnkit: Callable[..., Said], tmp_path: Path, package: str, pattern: str,
    harm: Callable[[Path], bytes],
) -> None:  # fmt: skip
    root = copy_board(board, tmp_path / "root")
    if harm is truncated:
        knnkit(root, "deploy", "--release", releases["iris"])
    (library, *_) = sorted(root.glob(f"venvs/*/lib/python3*/site-packages/{pattern}"))
    data = harm(library)
    library.unlink()  # the other boards share its bytes
    library.write_bytes(data)
    found = findings(knnkit(root, "doctor", code=1))
    level, _, mend = found[package]
    assert level == "error", found
    assert mend.startswith("knnkit provision --target ")
    assert "HOST" not in mend
    assert not {"numpy", "runtime", "cryptography"} - {package} & set(found)
    said = knnkit(root, "provision", "--offline")
    assert said["outcome"] == "answered"
    assert "was damaged and will be repaired" in str(said["warnings"])
    wrong = findings(knnkit(root, "doctor", code=0 if harm is truncated else 1))
    assert package not in wrong
    assert knnkit(root, "provision", "--offline")["outcome"] == "unchanged"
