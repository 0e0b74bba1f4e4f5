"""Reasons of refusals: one stable word per trust rule.

A word never changes its meaning and is never reused for another rule. Does no I/O.
"""

from __future__ import annotations

import enum

from device_agent.shared.protocol.errors import Refused

#: What to do with a device that has no room for more, or has lost count of its revoked keys. To delete device.json
#: would make every revoked key good again.
START_ANEW = (
    "knnkit provision --remove --target HOST, then knnkit deploy --target HOST: the device then trusts the keys of "
    "deploy.yaml alone"
)


class Reason(str, enum.Enum):
    """Why a release or an order was refused; `Refused.reason` is the word."""

    # the directory
    FILE_MISSING = "file-missing"
    FILE_UNLISTED = "file-unlisted"  # in the directory or in the signature, but not a file of a release
    FILE_HIDDEN = "file-hidden"  # a dot file
    FILE_SYMLINK = "file-symlink"
    FILE_SPECIAL = "file-special"  # a directory, a pipe, a socket, a device
    FILE_TOO_LARGE = "file-too-large"
    FILE_CHANGED = "file-changed"  # its bytes are not those that were signed
    FILE_UNREADABLE = "file-unreadable"
    FILE_SWAPPED = "file-swapped"  # changed while, or after, it was verified
    # the bundle
    SIGNATURE_MALFORMED = "signature-malformed"
    WRONG_MEDIA_TYPE = "wrong-media-type"
    WRONG_PAYLOAD_TYPE = "wrong-payload-type"
    WRONG_STATEMENT_TYPE = "wrong-statement-type"
    WRONG_PREDICATE_TYPE = "wrong-predicate-type"
    NO_SIGNATURE = "no-signature"
    MANY_SIGNATURES = "many-signatures"
    NO_KEY_HINT = "no-key-hint"
    BAD_SIGNATURE = "bad-signature"
    EMPTY_RESOURCES = "empty-resources"
    DUPLICATE_NAME = "duplicate-name"
    UNSAFE_NAME = "unsafe-name"  # `..`, absolute, with a slash, or hidden
    WRONG_ORDER = "wrong-order"  # the resources are not sorted by name
    WRONG_ROOT = "wrong-root"
    # the keys
    NO_TRUSTED_KEYS = "no-trusted-keys"
    UNKNOWN_KEY = "unknown-key"
    REVOKED_KEY = "revoked-key"
    KEY_MALFORMED = "key-malformed"
    LAST_KEY = "last-key"
    TOO_MANY_REVOKED = "too-many-revoked"
    # release.json
    MANIFEST_MALFORMED = "manifest-malformed"
    OLDER_SEQUENCE = "older-sequence"
    SAME_SEQUENCE = "same-sequence"  # as the newest committed release, with other contents
    SEQUENCE_TOO_FAR = "sequence-too-far"
    CREATED_TOO_FAR = "created-too-far"
    EXPIRED = "expired"
    WRONG_NAME = "wrong-name"
    WRONG_DEVICE_CLASS = "wrong-device-class"
    AGENT_TOO_OLD = "agent-too-old"
    RUNTIME_TOO_OLD = "runtime-too-old"
    OTHER_RELEASE = "other-release"  # valid, but not the requested one
    # signed orders: rotation, revocation, rollback
    ORDER_MALFORMED = "order-malformed"
    ORDER_NEEDS_OLD_KEY = "order-needs-old-key"
    ORDER_NEEDS_NEW_KEY = "order-needs-new-key"
    ORDER_OTHER_DEVICE = "order-other-device"
    ORDER_USED = "order-used"
    ORDER_STALE = "order-stale"  # the device has another release or floor by now
    ORDER_EXPIRED = "order-expired"


def refused(reason: Reason, message: str, hint: str = "") -> Refused:
    """Returns the exception to raise for `reason`."""
    return Refused(message, reason=reason.value, hint=hint)
