"""Judges a certificate, a device's golden check, on the host.

A certificate is a device's report of a golden check: how its answers to the golden rows differ from the reference. A
device may be hostile or out of date, so a certificate is valid only with the nonce of this run, for this release, and
with consistent numbers. The gates are applied to these numbers here, whatever the device concluded. No I/O.
"""

from __future__ import annotations

from device_agent.shared.golden import class_gates, error_gates
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.documents import ReleaseRef
from device_agent.shared.protocol.model_info import Gates
from device_agent.shared.protocol.reports import Certificate, EmbeddingCheck, TaughtCheck
from knnkit.fleet.report import readable
from knnkit.release.package import Package

#: A day for one row: no command waits that long.
_LONGEST_MS = 24 * 3600 * 1e3
#: Distances are float32 on a device.
_LARGEST_ERROR = 3.5e38


def disbelieved(
    certificate: Certificate, nonce: str, digest: str, model_sha256: str | None = None, rows: int | None = None
) -> str:
    """Returns why a certificate is not valid; "" if it is valid.

    A valid one has the digits `nonce`, is for the release `digest`, and has consistent numbers, also with its
    `model_sha256` and number of golden `rows` unless these are None.
    """
    if certificate.nonce != nonce:
        return "the certificate has another nonce: it was not made for this run"
    if certificate.release != digest:
        return f"the certificate is for release {certificate.release[:12]}, not {digest[:12]}"
    if model_sha256 is not None and certificate.model_sha256 != model_sha256:
        return "the certificate is for another model file"
    covered = certificate.identical + certificate.equivalent + certificate.different
    if not _agree(certificate, covered):
        return "the certificate's numbers contradict each other"
    if not _plausible(certificate, covered):
        return "the certificate holds numbers that no device can measure"
    if rows is not None and covered != rows:
        return f"the certificate covers {covered:,} rows of {rows:,}"
    if covered == 0:
        return "the certificate covers no rows"
    return ""


def _agree(certificate: Certificate, covered: int) -> bool:
    counts = (certificate.identical, certificate.equivalent, certificate.different, certificate.accuracy_rows)
    if readable(certificate) is not certificate:
        return False
    if min(counts) < 0 or certificate.accuracy_rows > covered or len(certificate.differences) > certificate.different:
        return False
    if certificate.accuracy is None:
        return certificate.accuracy_rows == 0
    return certificate.accuracy_rows > 0 and 0.0 <= certificate.accuracy <= 1.0


def _plausible(certificate: Certificate, covered: int) -> bool:
    """Whether all values, measured on `covered` golden rows, are possible: a negative time would pass every gate."""
    latency, own = certificate.latency, certificate.embedding
    errors = [certificate.largest_distance_error, *(row.distance_error for row in certificate.differences)]
    errors += [each.rmse for each in certificate.errors] + [each.max_error for each in certificate.errors]
    return (
        (latency is None or 0.0 <= latency.p50_ms <= latency.p99_ms <= _LONGEST_MS)
        and all(0.0 <= error <= _LARGEST_ERROR for error in errors)
        and all(0 <= each.right <= each.rows for each in certificate.columns)
        and (certificate.accepted is None or 0.0 <= certificate.accepted <= 1.0)
        and (own is None or _plausible_stages(own))
        and (certificate.taught is None or _plausible_taught(certificate.taught, covered))
    )


def _plausible_taught(taught: TaughtCheck, covered: int) -> bool:
    return (
        all(number > 0 for number in taught.labels.values())
        and 0 < sum(taught.labels.values()) <= taught.rows
        and 0 <= taught.changed <= covered
        and constants.is_digest(taught.digest)
        and constants.is_digest(taught.answers)
    )


def _plausible_stages(own: EmbeddingCheck) -> bool:
    labels = (own.labels_same, own.labels_open, own.labels_different)
    counts = (*labels, own.above, own.search_different)
    above = own.largest_error > own.bound
    return (
        min(counts) >= 0
        and max(counts) <= sum(labels) == own.rows
        and 0.0 <= own.largest_error <= _LARGEST_ERROR
        and above == (own.above > 0)
    )


def missed(certificate: Certificate, package: Package | None, running: ReleaseRef | None = None) -> tuple[str, ...]:
    """Returns messages about the gates that a certificate fails, by the device's verdict or the certificate's numbers.

    `package` is the release with the gates; None: only parity and the device's own verdict count. `running` is the
    release that the device ran before; None: there is none to compare with.
    """
    found = list(certificate.failures)
    if certificate.different and not any("differ" in failure for failure in found):
        count = certificate.different
        found.append(f"{constants.counted(count, 'row')} {'differs' if count == 1 else 'differ'} from the reference")
    gates = package.manifest.gates if package else None
    if gates and gates.accuracy is not None and not any("accuracy" in failure for failure in found):
        if certificate.accuracy is None:
            found.append("accuracy was not measured")
        elif certificate.accuracy < gates.accuracy:
            found.append(f"accuracy {certificate.accuracy:.6g} is under {gates.accuracy:g}")
    more = (*_missed_errors(certificate, gates), *_missed_by_class(certificate, gates, running)) if gates else ()
    found += [text for text in more if text not in found]
    if gates and gates.latency_ms is not None and not any("latency" in failure for failure in found):
        if certificate.latency is None:
            found.append("latency was not measured")
        elif certificate.latency.p50_ms > gates.latency_ms:
            found.append(f"latency {certificate.latency.p50_ms:.4g} ms is over {gates.latency_ms:g} ms")
    found += [text for text in _missed_by_stages(certificate, package) if text not in found]
    return tuple(found)


def _missed_by_stages(certificate: Certificate, package: Package | None) -> tuple[str, ...]:
    """Returns messages if rows that the device's stages computed are unchecked or too far from the host's; else ()."""
    if certificate.embedding is not None:
        return error_gates.stage_failures(certificate.embedding)
    missing = package is not None and any(file.name in constants.STAGE_FILES for file in package.files)
    return ("embedding: the stages were not checked",) if missing else ()


def _missed_errors(certificate: Certificate, gates: Gates) -> tuple[str, ...]:
    columns = error_gates.missed_columns(gates, certificate.columns, [each.column for each in certificate.columns])
    names = [each.target for each in certificate.errors]
    return (*error_gates.missed(gates, certificate.errors, names), *columns)


def _missed_by_class(certificate: Certificate, gates: Gates, running: ReleaseRef | None) -> tuple[str, ...]:
    """Returns messages about gates on single classes that the certificate fails; `running`: the previous release."""
    table = certificate.confusion
    found: tuple[str, ...] = ()
    if table and len(certificate.classes) == len(table):
        support, right = [sum(row) for row in table], [row[place] for place, row in enumerate(table)]
        found = class_gates.failures(gates, certificate.classes, support, right)
    return (*found, *class_gates.worse(gates, certificate.compared, running))
