"""Builds the agent's wheel from this knnkit's device_agent package."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from pathlib import Path

import device_agent

_DATE = (1980, 1, 1, 0, 0, 0)
_PROJECT = "knnkit_device_agent"


def agent_wheel() -> tuple[str, bytes]:
    """Returns the wheel's file name and its bytes; equal sources give equal bytes on any machine."""
    source = Path(device_agent.__file__).parent
    version = device_agent.__version__
    info = f"{_PROJECT}-{version}.dist-info"
    files = {
        f"device_agent/{path.relative_to(source).as_posix()}": path.read_bytes()
        for path in source.rglob("*")
        if path.is_file() and (path.suffix == ".py" or path.name == "py.typed")
    }
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: knnkit-device-agent\nVersion: {version}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: knnkit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},{_digest(content)},{len(content)}\n" for name, content in sorted(files.items()))
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    return f"{_PROJECT}-{version}-py3-none-any.whl", _archive(files)


def _digest(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    # Not compressed: the bytes must not depend on the host's zlib.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o100644 << 16
            entry.create_system = 3
            archive.writestr(entry, content)
    return buffer.getvalue()
