"""One small release to many devices: knnkit against the same copy and check done with Ansible and with pyinfra.

Every device is a real sshd on 127.0.1.x with its own root, all provisioned in the same way. Ansible and pyinfra copy
the four files and run the agent's `stage` and `activate` (which includes the golden check). knnkit probes the device,
does both by one `install`, and confirms over a new connection. All work on the same number of devices at a time. One
run, one machine; times are wall clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import peers, report

sys.path.insert(0, str(peers.ROOT / "tests"))

from support import sshd
from support.board_roots import copy_board, make_board
from support.releases import Releases, provide

from knnkit.release.package import read_package

FORKS = 16
RIVALS = ("ansible-core>=2.17,<2.20", "pyinfra>=3,<4")


@dataclass(frozen=True)
class Bed:
    """The test bed: the servers that act as devices, and the folder of their roots."""

    folder: Path
    servers: tuple[sshd.Sshd, ...]
    board: Path
    releases: Releases

    def cpu_seconds(self) -> float:
        """Returns the processor time of the devices so far: that of the servers and of all processes they started."""
        spent: dict[int, tuple[int, int]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                spent[int(path.parent.name)] = int(fields[1]), sum(map(int, fields[11:15]))
        found = {server.process.pid for server in self.servers}
        while more := {pid for pid, (parent, _) in spent.items() if parent in found} - found:
            found |= more
        return sum(spent[pid][1] for pid in found) / os.sysconf("SC_CLK_TCK")

    def roots(self, name: str) -> list[Path]:
        """Makes fresh roots for one contender."""
        return [copy_board(self.board, self.folder / name / f"r{n:03}") for n in range(len(self.servers))]


@contextlib.contextmanager
def bed(count: int) -> Iterator[Bed]:
    """Yields running servers and a provisioned board; they end with the block."""
    with tempfile.TemporaryDirectory(prefix="knnkit-fleet-") as made:
        folder = Path(made)
        releases = provide()
        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(_serve, folder / f"s{n:03}", f"127.0.1.{n + 1}") for n in range(count)]
            servers = tuple(job.result() for job in jobs)
        try:
            yield Bed(folder, servers, make_board(folder / "board", releases), releases)
        finally:
            for server in servers:
                server.stop()


def _serve(folder: Path, host: str) -> sshd.Sshd:
    """Starts a server with its own home, so that the start files of this machine's login shell cost no time."""
    return sshd.start(folder, host=host, extra=f"SetEnv HOME={folder}")


def rivals_python(given: str | None, say: Callable[[str], None]) -> Path:
    """Returns an environment that has Ansible and pyinfra, making it under build/ when none is given."""
    folder = Path(given).absolute() if given else peers.BUILD / "rivals"
    if not all((folder / "bin" / name).exists() for name in ("ansible-playbook", "pyinfra")):
        say(f"making the environment of Ansible and pyinfra (once): {folder.name}")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "install", "-qq", *RIVALS], check=True)
    return folder


def timed(bed: Bed, command: list[str], env: dict[str, str], cwd: Path) -> dict[str, float]:
    """Runs a command; returns wall-clock seconds, processor seconds, and the peak memory of its largest process."""
    begun, spent = time.monotonic(), bed.cpu_seconds()
    with (cwd / "log").open("w+") as log:
        child = subprocess.Popen(command, env=env, cwd=cwd, stdout=log, stderr=log)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - begun
        if child.returncode:
            log.seek(0)
            raise RuntimeError(f"{command[0]} ended with {child.returncode}:\n{log.read()[-4000:]}")
    return {
        "seconds": seconds,
        "host_cpu_seconds": usage.ru_utime + usage.ru_stime,
        "devices_cpu_seconds": bed.cpu_seconds() - spent,
        "peak_bytes": usage.ru_maxrss * 1024.0,
    }


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL") if name in os.environ}
    return kept | {"PYTHONPATH": str(peers.ROOT)}


def knnkit(bed: Bed) -> dict[str, Any]:
    """Runs the first deploy, and a second one with nothing to do."""
    folder = bed.folder / "knnkit"
    roots = bed.roots("knnkit")
    (folder / "known_hosts").write_text("".join(server.known_hosts.read_text() for server in bed.servers))
    (folder / "ssh_config").write_text("")
    targets = "".join(
        f"    - {{name: d{n:03}, host: {s.host}, port: {s.port}, user: {s.user}, root: '{root}', "
        f"identity: '{s.identity}'}}\n"
        for n, (s, root) in enumerate(zip(bed.servers, roots))
    )
    (folder / "deploy.yaml").write_text(
        "model: {name: iris, data: {sklearn: iris}}\n"
        f"fleet:\n  known_hosts: known_hosts\n  ssh_config: ssh_config\n  targets:\n{targets}"
        f"rollout: {{concurrency: {FORKS}}}\n"
    )
    command = [sys.executable, "-m", "knnkit", "deploy", "--release", str(bed.releases["iris"])]
    first = timed(bed, command, _environment(), folder)
    return {"first": first, "again": timed(bed, command, _environment(), folder)}


def _steps(bed: Bed) -> tuple[str, list[str], Path]:
    release = bed.releases["iris"]
    digest = read_package(release, {}).digest
    agent = "venv/bin/python -m device_agent --root"
    return digest, [f"{agent} . stage incoming/{digest}", f"{agent} . activate {digest} --deadline 600"], release


def ansible(bed: Bed, python: Path) -> dict[str, Any]:
    """Runs Ansible as fast as its manual says: pipelining, kept connections, no facts, the free strategy."""
    folder = bed.folder / "ansible"
    roots = bed.roots("ansible")
    digest, commands, release = _steps(bed)
    hosts = "\n".join(
        f"d{n:03} ansible_host={s.host} ansible_port={s.port} ansible_user={s.user} "
        f"ansible_ssh_private_key_file={s.identity} root={root} ansible_python_interpreter=/usr/bin/python3 "
        f"ansible_ssh_common_args='-F none -o UserKnownHostsFile={s.known_hosts} -o IdentitiesOnly=yes "
        f"-o ControlMaster=auto -o ControlPersist=60s'"
        for n, (s, root) in enumerate(zip(bed.servers, roots))
    )
    (folder / "hosts").write_text(hosts + "\n")
    names = ", ".join(sorted(path.name for path in release.iterdir()))
    tasks = "".join(f"    - command: {{cmd: {json.dumps(command)}, chdir: '{{{{ root }}}}'}}\n" for command in commands)
    (folder / "play.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  strategy: free\n  tasks:\n"
        f"    - file: {{path: '{{{{ root }}}}/incoming/{digest}', state: directory, mode: '0700'}}\n"
        f"    - copy: {{src: '{release}/{{{{ item }}}}', dest: '{{{{ root }}}}/incoming/{digest}/', mode: '0600'}}\n"
        f"      loop: [{names}]\n{tasks}"
    )
    (folder / "ansible.cfg").write_text(
        f"[defaults]\nforks = {FORKS}\ninventory = hosts\nhost_key_checking = True\nretry_files_enabled = False\n"
        "[ssh_connection]\npipelining = True\n"
    )
    command = [str(python / "bin" / "ansible-playbook"), "play.yml"]
    return {
        "first": timed(bed, command, _environment() | {"ANSIBLE_CONFIG": "ansible.cfg", "LC_ALL": "C.UTF-8"}, folder)
    }


def pyinfra(bed: Bed, python: Path) -> dict[str, Any]:
    """Runs pyinfra with the same parallelism, and operations that need no facts."""
    folder = bed.folder / "pyinfra"
    roots = bed.roots("pyinfra")
    digest, commands, release = _steps(bed)
    hosts = [
        (
            f"d{n:03}",
            {
                "ssh_hostname": s.host,
                "ssh_port": s.port,
                "ssh_user": s.user,
                "ssh_key": str(s.identity),
                "ssh_known_hosts_file": str(s.known_hosts),
                "ssh_strict_host_key_checking": "yes",
                "root": str(root),
            },
        )
        for n, (s, root) in enumerate(zip(bed.servers, roots))
    ]
    (folder / "inventory.py").write_text(f"devices = {hosts!r}\n")
    puts = "".join(
        f"files.put(src={str(path)!r}, dest=f'{{root}}/incoming/{digest}/{path.name}', mode='600')\n"
        for path in sorted(release.iterdir())
    )
    (folder / "deploy.py").write_text(
        "from pyinfra import host\nfrom pyinfra.operations import files, server\nroot = host.data.root\n"
        f"files.directory(path=f'{{root}}/incoming/{digest}', mode='700')\n{puts}"
        f"server.shell(commands=[f'cd {{root}} && {commands[0]}', f'cd {{root}} && {commands[1]}'])\n"
    )
    command = [str(python / "bin" / "pyinfra"), "-y", "--parallel", str(FORKS), "inventory.py", "deploy.py"]
    return {"first": timed(bed, command, _environment(), folder)}


def check(bed: Bed, name: str) -> int:
    """Returns the number of devices on which the release answers after a contender's run."""
    found = 0
    for root in sorted((bed.folder / name).glob("r[0-9]*")):
        argv = [str(root / "venv/bin/python"), "-m", "device_agent", "--root", str(root), "status", "--json"]
        status = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
        found += status["answering"] is not None
    return found


def run(count: int, rivals: str | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Measures all three on `count` devices; returns the figures."""
    begun = time.monotonic()
    python = rivals_python(rivals, say)
    results: dict[str, Any] = {"devices": count, "at a time": FORKS}
    say(f"{time.monotonic() - begun:4.0f} s  setting up {count} devices")
    with bed(count) as made:
        contenders: dict[str, Callable[[], dict[str, Any]]] = {
            "knnkit": lambda: knnkit(made),
            "ansible": lambda: ansible(made, python),
            "pyinfra": lambda: pyinfra(made, python),
        }
        for name, contender in contenders.items():
            say(f"{time.monotonic() - begun:4.0f} s  {name} deploys to {count} devices")
            results[name] = contender()
            results[name]["answering"] = check(made, name)
            shutil.rmtree(made.folder / name)
    results["versions"] = _versions(python)
    return results


def _versions(python: Path) -> dict[str, str]:
    listed = subprocess.run([str(python / "bin" / "pip"), "freeze"], capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r"^(ansible-core|pyinfra)==(\S+)$", listed, re.MULTILINE))


#: What is compared: how it is called, whose figures, which run.
_RUNS = (
    ("knnkit", "knnkit", "first"),
    ("Ansible", "ansible", "first"),
    ("pyinfra", "pyinfra", "first"),
    ("knnkit, nothing to do", "knnkit", "again"),
)


def _lines(results: dict[str, Any]) -> list[list[str]]:
    own = results["knnkit"]["first"]["seconds"]
    lines = []
    for shown, name, run in _RUNS:
        found = results[name][run]
        each = found["devices_cpu_seconds"] / results["devices"]
        figures = [f"{found['seconds']:.1f}", f"{found['seconds'] / own:.2f}", f"{found['host_cpu_seconds']:.1f}"]
        lines.append([shown, *figures, f"{each:.2f}", f"{found['peak_bytes'] / 1e6:.0f}"])
    return lines


_HEAD = ["", "seconds", "of knnkit's", "host CPU s", "device CPU s each", "peak MB"]


def table(results: dict[str, Any]) -> str:
    """Returns the figures as a table."""
    reached = ", ".join(f"{name} {results[name]['answering']}" for name in ("knnkit", "ansible", "pyinfra"))
    return f"{report.table(_HEAD, _lines(results))}\nthe release answers on, of {results['devices']}: {reached}"


def markdown(results: dict[str, Any]) -> str:
    """Returns the figures as docs/benchmarks/README.md shows them."""
    versions = " ".join(f"{name} {number}" for name, number in sorted(results["versions"].items()))
    head = [f"{results['devices']} devices, {results['at a time']} at a time ({versions})", *_HEAD[1:]]
    rows = [head, ["---"] * len(head), *_lines(results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def goals(results: dict[str, Any]) -> list[str]:
    """Returns the goals that were missed."""
    own, again = results["knnkit"]["first"]["seconds"], results["knnkit"]["again"]["seconds"]
    missed = [f"not faster than {name}" for name in ("ansible", "pyinfra") if results[name]["first"]["seconds"] <= own]
    missed += ["a second deploy takes more than a fifth of the first"] if again > own / 5 else []
    missed += [f"{n} did not reach every device" for n in ("knnkit",) if results[n]["answering"] != results["devices"]]
    return missed
