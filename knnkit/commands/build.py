"""`knnkit build`: builds a signed release from deploy.yaml.

A release whose inputs did not change is not built again."""

from __future__ import annotations

import argparse
import sys

from device_agent.shared.golden.error_gates import scores_of
from device_agent.shared.protocol import constants, json_codec
from knnkit.commands import _config, _output
from knnkit.config import load
from knnkit.errors import UsageError
from knnkit.evaluation import metrics
from knnkit.evaluation.metrics import percent
from knnkit.release import build, describe, signing, up_to_date
from knnkit.release.build import Built
from knnkit.render import figures
from knnkit.render.sanitize import clean, count, moment


def run(arguments: argparse.Namespace) -> int:
    """Builds a release for every model of deploy.yaml; returns 0."""
    config = load.load(arguments.config)
    builds = _config.require_builds(config, "nothing to build", arguments.config)
    if arguments.output is not None and len(builds) > 1:
        raise UsageError(f"-o takes one release, but {arguments.config} has {len(builds)} models", hint="leave out -o")
    with _config.line_in_errors(config):
        signer = signing.load_signer(builds[0].signing.key)
    documents = []
    for each in builds:
        make = build.build_release if arguments.force else build.ensure_release
        again = up_to_date.version_again(arguments.output or each.release.dir, each)
        with _output.building(each.model.name, again) as step:
            built = make(each, signer, out=arguments.output, step=step)
        _tell(built)
        documents.append(_document(built))
    if arguments.json:
        print(json_codec.dumps({"releases": documents}))
    return 0


def _tell(built: Built) -> None:
    info, manifest = built.info, built.manifest
    ends = "" if manifest.expires is None else f", expires {moment(manifest.expires)}"
    what = f"{manifest.name} {manifest.version} (sequence {manifest.sequence}{ends})"
    for warning in built.warnings:
        print(f"knnkit: warning: {warning}", file=sys.stderr)
    if not built.fresh:
        print(f"{built.directory}: {what} is up to date", file=sys.stderr)
        return
    print(f"{built.directory}: {what}", file=sys.stderr)
    folded = describe.folded_in(built.directory / constants.MODEL_FILE, info)
    print(
        f"  {count(info.n_train, 'row')} x {count(info.n_features, 'feature')}, "
        f"{clean(figures.answers_of(info))}, {info.how}{'' if folded else f', scale {info.scale}'}",
        file=sys.stderr,
    )
    if folded:
        print(f"  steps before the search: {'; '.join(folded)}", file=sys.stderr)
    for note in built.notes:
        print(f"  {clean(note)}", file=sys.stderr)
    for line in figures.lines_of(info):
        print(f"  {clean(line)}", file=sys.stderr)
    if info.reject is not None and info.reject.measured is not None:
        print(
            f"  accepts {percent(info.reject.measured)} of {count(info.reject.measured_rows, 'held-out row')} "
            f"({figures.accepted(info.reject)} asked for)",
            file=sys.stderr,
        )


def _document(built: Built) -> dict[str, object]:
    return {
        "directory": str(built.directory),
        "digest": built.digest,
        "fresh": built.fresh,
        "manifest": json_codec.to_plain(built.manifest),
        "accuracy": built.accuracy,
        "accuracy_rows": built.accuracy_rows,
        "evaluation": metrics.document(built.figures, built.info.evaluation.how if built.info.evaluation else ""),
        "errors": json_codec.to_plain(built.info.targets.errors if built.info.targets else ()),
        "columns": json_codec.to_plain(scores_of(built.info.targets) if built.info.targets else ()),
        "warnings": list(built.warnings),
        "notes": list(built.notes),
    }
