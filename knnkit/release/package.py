"""Reads a finished release for deployment; never builds or signs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.documents import ReleaseRef
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.model_info import Manifest
from device_agent.shared.release import directory as release_files
from device_agent.shared.release.model_file import read_info
from device_agent.shared.trust import oms
from knnkit.errors import VerificationFailed, raised_as
from knnkit.release.manifest import read_manifest
from knnkit.release.signing import require_directory
from knnkit.release.verify import verify_with


@dataclass(frozen=True)
class PackageFile:
    """One file of a release: name, size in bytes and hexadecimal SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Package:
    """A release directory that is ready for upload."""

    directory: str
    ref: ReleaseRef
    manifest: Manifest
    signed_by: str  # fingerprint of the key that model.sig names; verified only if that key is known
    model_sha256: str
    files: tuple[PackageFile, ...]
    signature: bytes = b""  # model.sig, for a device that has all other files already
    pictures: bool = False  # whether the model takes pictures, which a device decodes with Pillow

    @property
    def digest(self) -> str:
        """The digest that identifies the release."""
        return self.ref.digest

    @property
    def size(self) -> int:
        """Size of all files together, in bytes."""
        return sum(file.size for file in self.files)


def read_package(directory: Path, trusted: Mapping[str, bytes]) -> Package:
    """Reads a finished release; verifies it if the key that signed it is in `trusted` (fingerprint -> PEM text).

    If the key is not in `trusted`, the signature is not checked here, but only on the device.

    Raises:
        VerificationFailed: the release is incomplete or malformed, or its signature is wrong.
        UsageError: there is no such directory.
    """
    require_directory(directory)
    directory = directory.resolve() if directory.is_symlink() else directory  # the link may change meanwhile
    with raised_as(VerificationFailed, directory), release_files.open_release(directory) as opened:
        files = tuple(
            PackageFile(name, opened.opened[name].fact.size, opened.opened[name].fact.sha256)
            for name in sorted(opened.opened)
        )
        manifest = read_manifest(opened.read(constants.MANIFEST_FILE))
        signature = opened.read(constants.SIGNATURE_FILE)
        signed_by = oms.read_bundle(signature).fingerprint
        digest = oms.root_digest(fact.sha256 for _, fact in sorted(opened.files.items()))
        model_sha256 = opened.files[constants.MODEL_FILE].sha256
    if signed_by in trusted:
        verify_with(directory, dict(trusted))
    ref = ReleaseRef(digest, manifest.name, manifest.version, manifest.sequence)
    pictures = any(file.name in constants.STAGE_FILES for file in files) and _takes_pictures(directory)
    return Package(str(directory), ref, manifest, signed_by, model_sha256, files, signature, pictures)


def _takes_pictures(directory: Path) -> bool:
    try:
        info = read_info(directory / constants.MODEL_FILE)
    except ModelUnusable:  # the device says why
        return False
    return info.input is not None and info.input.image is not None


def package_for(packages: tuple[Package, ...], device_class: str) -> Package | None:
    """Returns the first release for this device class; else the first for the class `any`; None if there is neither."""
    exact = [package for package in packages if package.manifest.device_class == device_class]
    general = [package for package in packages if package.manifest.device_class == "any"]
    return next(iter(exact or general), None)
