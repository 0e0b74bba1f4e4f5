"""Report pages to test with: a fleet with every outcome, one device, a thousand, and a hostile one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from device_agent.shared.protocol.documents import DeviceInfo, ReleaseRef
from device_agent.shared.protocol.model_info import Gates
from device_agent.shared.protocol.reports import Certificate, Latency, RowDifference, RuntimeInfo
from knnkit.fleet.report import DeviceReport, Outcome, Step
from knnkit.render import decision_regions as regions
from knnkit.render.page import Page

DIGEST = "3f" * 32
RELEASE = ReleaseRef(DIGEST, "fruit", "1.4.0", 12)
CLASSES = ("apple", "banana", "cherry")

#: What a device might say to take over a page or a terminal.
HOSTILE = (
    "</style><script>document.title='owned'</script><img src=http://192.0.2.1/x onerror=alert(1)>\x1b[2J\u202e\"'&"
)


#: When the run of `fleet` began, in seconds since 1970.
BEGAN = 1_772_366_400.0


def device(name: str, outcome: Outcome, message: str = "", hint: str = "", **more: object) -> DeviceReport:
    """Returns the report of a device that was deployed to."""
    more = {"release": RELEASE if "certificate" in more else None, **more}
    return DeviceReport(name, f"pi@{name}", outcome, message=message, hint=hint, **more)  # type: ignore[arg-type]


def certificate(machine: str = "aarch64", **changed: object) -> Certificate:
    proof = Certificate(
        nonce="a1b2c3d4e5f60718",
        release=DIGEST,
        name="fruit",
        version="1.4.0",
        sequence=12,
        model_sha256="ab" * 32,
        identical=300,
        equivalent=0,
        different=0,
        differences=(),
        largest_distance_error=2.4e-7,
        accuracy=0.9433333333333334,
        accuracy_rows=300,
        accepted=0.99,
        confusion=((98, 2, 0, 0), (3, 91, 4, 2), (0, 5, 94, 1)),
        latency=Latency(0.021, 0.094, 1000),
        runtime=RuntimeInfo("tflite_runtime", "2.14.0", "XNNPACK", "3.11.2", "1.26.4"),
        device=DeviceInfo("greenhouse-1", machine, "Cortex-A72", 4, 4_000_000_000, "0.1.0"),
        failures=(),
        issued=1_772_366_400,
    )
    return replace(proof, **changed)  # type: ignore[arg-type]


def steps(start: float, slow: float = 1.0) -> tuple[Step, ...]:
    names = {"probe": 0.4, "upload": 1.2, "stage": 0.3, "activate": 0.9, "confirm": 0.5}
    found = []
    for name, seconds in names.items():
        found.append(Step(name, start, seconds * slow))
        start += seconds * slow
    return tuple(found)


def decision_regions() -> regions.Regions:
    generator = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [3.0, 1.0], [1.0, 4.0]])
    truth = np.repeat(np.arange(3), 60).astype(np.int32)
    points = centres[truth] + generator.normal(size=(180, 2))

    def nearest_centre(rows: np.ndarray) -> np.ndarray:
        answers = ((rows[:, None, :] - centres) ** 2).sum(axis=2).argmin(axis=1).astype(np.int32)
        answers[(np.abs(rows - centres.mean(axis=0)) > 4.6).any(axis=1)] = -1
        return answers

    return regions.survey(nearest_centre, points, truth, CLASSES, ("redness", "length in cm"))


def fleet() -> Page:
    """Seven devices, of which three went wrong, each in its own way."""
    differences = tuple(RowDifference(row, "apple", "banana", (4, 17, 230), (4, 230, 17), 0.031) for row in range(20))
    astray = certificate("armv7l", identical=271, equivalent=6, different=23, differences=differences,
                         failures=("parity: 23 of 300 golden rows are answered differently; none may be",),
                         largest_distance_error=0.31, accuracy=0.871, latency=Latency(0.41, 1.9, 1000),
                         confusion=((90, 8, 2, 0), (9, 80, 9, 2), (4, 7, 89, 0)))  # fmt: skip
    litert = RuntimeInfo("ai_edge_litert", "2.3.0", "XNNPACK", "3.13.5", "2.3.1")
    good, end = Outcome.COMMITTED, Step("roll back", BEGAN + 8.84, 0.7)
    devices = (
        device("greenhouse-1", good, wave=1, certificate=certificate(), steps=steps(BEGAN)),
        device("greenhouse-2", good, wave=2, steps=steps(BEGAN + 3.6, 1.3),
               certificate=certificate("armv7l", identical=298, equivalent=2, latency=Latency(0.19, 0.6, 1000))),
        device("greenhouse-3", Outcome.UNCHANGED, "already on this release", wave=2, steps=steps(BEGAN + 3.7)[:1],
               certificate=certificate("aarch64", runtime=litert, latency=Latency(0.009, 0.03, 1000))),
        device("orchard-with-a-rather-long-name.example.org:2222", Outcome.ROLLED_BACK,
               "parity: 23 of 300 golden rows are different", "knnkit doctor --target orchard", wave=2,
               certificate=astray, steps=(*steps(BEGAN + 3.8, 1.8)[:4], end)),
        device("cellar", Outcome.UNREACHABLE, "no answer on port 22 within 10 s", "check power and network", wave=2,
               steps=(Step("probe", BEGAN + 3.9, 10.0),)),
        device("roof", Outcome.FAILED, "41 MB free on the device, 190 MB needed", "knnkit doctor --target roof",
               wave=2, steps=steps(BEGAN + 4.2)[:1]),
        device("shed", Outcome.SKIPPED, "the failure budget was used up", wave=3),
    )  # fmt: skip
    return Page(
        "Deployment of fruit 1.4.0",
        "3 of 7 devices are on the release; 1 rolled back, 1 failed, 1 unreachable, 1 skipped",
        "bad", devices, RELEASE, Gates(1e-5, 0.9, 1.0), CLASSES, decision_regions(), "greenhouse-1",
        BEGAN, 13.9,
    )  # fmt: skip


def digits() -> Page:
    """Two devices and ten classes: a table of answers that no phone is wide enough for."""
    classes = tuple(f"digit {number}" for number in range(10))
    confusion = tuple(
        tuple(40 - row if row == column else (row * column) % 3 for column in range(11)) for row in range(10)
    )
    proof = certificate(confusion=confusion)
    devices = [device(name, Outcome.COMMITTED, certificate=proof, steps=steps(0.0)) for name in ("one", "two")]
    return Page("Digits", "2 of 2 devices are on the release", "good", tuple(devices), RELEASE, Gates(), classes)


def thousand() -> Page:
    """A thousand devices, one of which fails."""
    devices = [
        device(f"pi-{number:04}", Outcome.COMMITTED, certificate=certificate(), steps=steps(number * 0.05))
        for number in range(1000)
    ]
    devices[617] = replace(devices[617], certificate=certificate(identical=299, different=1, failures=("parity",)))
    return Page("A thousand", "one is astray", "bad", tuple(devices), RELEASE, Gates(), CLASSES)


def hostile() -> Page:
    """A page in which every text that a device, a file or a user may supply is an attack."""
    proof = certificate(
        HOSTILE, nonce=HOSTILE, release=HOSTILE, name=HOSTILE, version=HOSTILE, model_sha256=HOSTILE, different=1,
        failures=(HOSTILE,), runtime=RuntimeInfo(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE),
        device=DeviceInfo(HOSTILE, HOSTILE, HOSTILE, 1, 2**62, HOSTILE), issued=2**62,
        differences=(RowDifference(2**62, HOSTILE, HOSTILE, (2**62,), (-(2**62),), 1e308),),
        latency=Latency(1e-308, 1e308, 1), largest_distance_error=1e308,
    )  # fmt: skip
    release = ReleaseRef(HOSTILE, HOSTILE, HOSTILE, 1)
    there = {"certificate": proof, "steps": (Step(HOSTILE, 0.0, 1.0),), "warnings": (HOSTILE,), "release": release}
    liar = device(HOSTILE, Outcome.FAILED, HOSTILE, HOSTILE, wave=1, **there)
    places = replace(decision_regions(), classes=(HOSTILE,) * 3, features=(HOSTILE, HOSTILE))
    return Page(HOSTILE, HOSTILE, "bad", (liar,), release, Gates(latency_ms=1.0), (HOSTILE,) * 3, places, HOSTILE,
                1.0, 1.0, (HOSTILE,))  # fmt: skip
