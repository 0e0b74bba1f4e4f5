"""Whether a device's certificate may be believed and keeps the gates, judged again on the host. Pure.

A device may be hostile or stale: a certificate counts only with the nonce of this run, for the very release, with
numbers that agree with each other; the gates are applied to those numbers here, whatever the device concluded.
"""

from __future__ import annotations

from device_agent.shared.golden import class_gates
from device_agent.shared.protocol.model_info import Gates
from device_agent.shared.protocol.reports import Certificate
from knnkit.release.package import Package


def disbelieved(
    certificate: Certificate, nonce: str, digest: str, model_sha256: str | None = None, rows: int | None = None
) -> str:
    """Returns why a certificate is no answer to this question, or an empty string.

    Args:
        certificate: the device's.
        nonce: of this run.
        digest: of the release that was asked about.
        model_sha256: of its model file, where it is known.
        rows: how many rows it must cover, where that is known.
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
    if rows is not None and covered != rows:
        return f"the certificate covers {covered:,} rows of {rows:,}"
    if covered == 0:
        return "the certificate covers no rows"
    return ""


def _agree(certificate: Certificate, covered: int) -> bool:
    counts = (certificate.identical, certificate.equivalent, certificate.different, certificate.accuracy_rows)
    if min(counts) < 0 or certificate.accuracy_rows > covered or len(certificate.differences) > certificate.different:
        return False
    if certificate.accuracy is None:
        return certificate.accuracy_rows == 0
    return certificate.accuracy_rows > 0 and 0.0 <= certificate.accuracy <= 1.0


def missed(certificate: Certificate, package: Package | None) -> tuple[str, ...]:
    """Returns the gates that a certificate misses: those that the device names, and those that its numbers show."""
    found = list(certificate.failures)
    if certificate.different and not any("differ" in failure for failure in found):
        found.append(f"{certificate.different} rows differ from the reference")
    gates = package.manifest.gates if package else None
    if gates and gates.accuracy is not None and not any("accuracy" in failure for failure in found):
        if certificate.accuracy is None:
            found.append("accuracy was not measured")
        elif certificate.accuracy < gates.accuracy:
            found.append(f"accuracy {certificate.accuracy:.4f} is under {gates.accuracy:g}")
    found += [text for text in _missed_by_class(certificate, gates) if text not in found] if gates else []
    if gates and gates.latency_ms is not None and not any("latency" in failure for failure in found):
        if certificate.latency is None:
            found.append("latency was not measured")
        elif certificate.latency.p50_ms > gates.latency_ms:
            found.append(f"latency {certificate.latency.p50_ms:.4g} ms is over {gates.latency_ms:g} ms")
    return tuple(found)


def _missed_by_class(certificate: Certificate, gates: Gates) -> tuple[str, ...]:
    """Applies the gates on classes to the counts in the certificate, as far as it has them."""
    table = certificate.confusion
    found: tuple[str, ...] = ()
    if table and len(certificate.classes) == len(table):
        support, right = [sum(row) for row in table], [row[place] for place, row in enumerate(table)]
        found = class_gates.failures(gates, certificate.classes, support, right)
    return found if certificate.compared is None else (*found, *class_gates.worse(gates, certificate.compared))
