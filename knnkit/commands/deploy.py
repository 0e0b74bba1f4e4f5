"""`knnkit deploy`: deploys a release to devices, in waves.

For each device: build if needed, upload, activate, check, confirm."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import functools
import itertools
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.documents import ReleaseRef
from knnkit.commands import _config, _decision_regions, _options, _output, _query, _selection
from knnkit.commands import _dry_run as _plans
from knnkit.commands._query import Console
from knnkit.config.parse import Build, Config, parse_amount
from knnkit.errors import KnnkitError, UsageError, VerificationFailed
from knnkit.fleet import targets as device_targets
from knnkit.fleet.decide.plan import PlanOptions
from knnkit.fleet.jobs.deploy import plan_job, plans_of
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.fleet.rollout import waves
from knnkit.fleet.rollout.rollout import Rules, roll_out
from knnkit.fleet.targets import Target
from knnkit.release import build as builder
from knnkit.release import signing, up_to_date
from knnkit.release.card import read_card
from knnkit.release.evaluation_rows import EvaluationRows, read_evaluation_rows
from knnkit.release.package import Package, package_for, read_package
from knnkit.render import card
from knnkit.render.changes import Rows
from knnkit.render.fleet_report import page_of


def run(arguments: argparse.Namespace) -> int:
    """Deploys releases to the selected devices; returns the exit code of the whole run."""
    _output.check_report_paths(arguments)
    if arguments.provision == "never":
        _options.refuse(arguments, "cannot be combined with --provision never", "runtime", "offline", "wheels")
    config = _config.load_config(arguments)
    targets = _selection.select_targets(arguments, config)
    rules = _rules(arguments, config)
    _require_wave(targets, rules, config)
    keys = _selection.trusted_keys(arguments, config)
    _selection.pace_of(arguments, config), _selection.concurrency_of(arguments, config)  # before a build takes minutes
    packages = _packages(arguments, config, targets, keys)
    _require_signed_by(arguments.key, keys, packages)
    if arguments.retry_from:
        _warn_of_other_release(arguments.retry_from, packages)
    template = _template(arguments, config, packages[0], keys)
    chosen = _choose(targets, packages)

    def make_job(target: Target) -> DeviceJob:
        return replace(template, target=target, package=chosen[target.name])

    if arguments.dry_run:
        return _dry_run(arguments, config, [make_job(target) for target in targets], rules)
    directories = [Path(package.directory) for package in packages]
    # Before the run: a build may replace the release meanwhile.
    cards = [card.section(read_card(path)) for path in directories] if _output.draws(arguments) else ()
    with Console(total=len(targets)) as console, _selection.open_fan(arguments, config) as fan:
        report = roll_out(targets, make_job, rules, fan, console)
    report = replace(
        report, releases=tuple(package.ref for package in packages), nonce=template.nonce, holder=template.holder
    )
    return _output.finish(
        arguments,
        report,
        packages[0].manifest.gates if len(packages) == 1 else None,
        regions=_decision_regions.survey(arguments, report, targets, directories, template.pace),
        rows=_rows_of(packages),
        cards=cards,
    )


def _rows_of(packages: Sequence[Package]) -> Rows:
    """Returns a function from the digest of a release to its evaluation rows (None: not on this host)."""
    directories = {package.digest: Path(package.directory) for package in packages}

    @functools.cache
    def find(digest: str) -> EvaluationRows | None:
        with contextlib.suppress(KnnkitError):  # a build may have replaced the release
            if digest in directories and read_package(directories[digest], {}).digest == digest:
                return read_evaluation_rows(directories[digest])
        return None

    return find


def _require_signed_by(named: Sequence[Path], keys: Mapping[str, bytes], packages: Iterable[Package]) -> None:
    """Raises VerificationFailed if a release is signed by none of `keys` (fingerprint -> PEM), those of `--key`.

    Checks nothing if `named`, the files that `--key` names, is empty.
    """
    for package in packages:
        if named and package.signed_by not in keys:
            raise VerificationFailed(
                f"{package.directory}: signed by {package.signed_by}, which --key does not name",
                reason="unknown-key",
                hint="--key PUB, with the public key of the signer",
            )


def _warn_of_other_release(path: Path, packages: Iterable[Package]) -> None:
    """Prints a warning for each of `packages` that the run of the report `path` did not deploy."""
    known = _output.read_report(path).releases
    for ref in [package.ref for package in packages if known and package.digest not in {one.digest for one in known}]:
        said = f"{path} is a report of {', '.join(map(_named, known))}, which its other devices keep"
        print(f"knnkit: warning: {said}; this deploys {_named(ref)}", file=sys.stderr)


def _named(ref: ReleaseRef) -> str:
    return f"{ref.name} {ref.version} ({ref.digest[:12]})"


def _require_wave(targets: tuple[Target, ...], rules: Rules, config: Config | None) -> None:
    """Raises UsageError if the waves name a tag that no device has, or if no selected device is in a wave."""
    tags = {tag for one in (*targets, *(device_targets.targets_of(config) if config else ())) for tag in one.tags}
    for wave in filter(waves.is_tag, rules.waves):
        if wave not in tags:
            close = difflib.get_close_matches(str(wave), tags, n=1)
            said = f"--waves: no device has the tag {wave!r}" + (f"; did you mean {close[0]!r}?" if close else "")
            whole = [close[0] if each == wave else str(each) for each in rules.waves] if close else ["25%", "100%"]
            raise UsageError(said, hint=f"--waves {','.join(whole)}")
    if not waves.divide(targets, rules.waves)[0]:
        said = ", ".join(map(str, rules.waves))
        raise UsageError(f"the waves {said} contain none of the devices", hint="--waves 100%, or correct the tag")


def _rules(arguments: argparse.Namespace, config: Config | None) -> Rules:
    """Returns the rules of the rollout; devices that `--target` selects are one wave, unless `--waves` divides them."""
    said = config.rollout if config and not arguments.target else None
    waves: tuple[int | str, ...] = said.waves if said else ("100%",)
    failures: int | str = config.rollout.max_failures if config else 0
    usual = "--waves 25%,100%"
    try:
        if arguments.waves is not None:
            words = [word.strip() for word in arguments.waves.split(",")]
            waves = tuple(int(w) if _is_count(w) else w if constants.is_name(w) else parse_amount(w) for w in words)
        usual = "--max-failures 1"
        if arguments.max_failures is not None:
            text = arguments.max_failures
            failures = int(text) if _is_count(text) else parse_amount(text)
    except ValueError as error:
        raise UsageError(f"{usual.partition(' ')[0]}: {error}", hint=usual) from None
    back = arguments.rollback_succeeded or (config is not None and config.rollout.on_failure == "roll_back")
    return Rules(waves, failures, "roll_back" if back else "stop")


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _packages(
    arguments: argparse.Namespace, config: Config | None, targets: tuple[Target, ...], keys: dict[str, bytes]
) -> tuple[Package, ...]:
    directories = arguments.release
    if not directories:
        finished = ", or name a finished release: --release DIR"
        builds = _config.require_builds(config, "nothing to deploy", arguments.config, finished)
        classes = {target.device_class for target in targets}
        own = {build.model.device_class for build in builds}
        taken = classes | ({"any"} if classes - own else set())
        wanted = [build for build in builds if build.model.device_class in taken]
        if not wanted:
            raise _no_release_for(targets[0], own)
        with _config.line_in_errors(config):
            directories = [_ensure(build) for build in wanted]
    packages = tuple(read_package(directory, keys) for directory in directories)
    for one, other in itertools.combinations(packages, 2):
        if (named := one.manifest.device_class) == other.manifest.device_class:
            said = f"{one.directory} and {other.directory} are both for the device class {named!r}"
            raise UsageError(said, hint=f"--release {shlex.quote(one.directory)}, and no other of this class")
    return packages


def _ensure(build: Build) -> Path:
    """Returns the directory of a release; builds it if its inputs changed and its signing key is here."""
    if not build.signing.key.exists() and (build.release.dir / constants.SIGNATURE_FILE).exists():
        said = f"{build.release.dir} is deployed as it is, because its signing key, {build.signing.key}, is not here"
        print(f"knnkit: {said}", file=sys.stderr)
        return build.release.dir
    with _output.building(build.model.name, up_to_date.version_again(build.release.dir, build)) as step:
        made = builder.ensure_release(build, signing.load_signer(build.signing.key), step=step)
    for warning in made.warnings:
        print(f"knnkit: warning: {warning}", file=sys.stderr)
    return made.directory


def _choose(targets: tuple[Target, ...], packages: tuple[Package, ...]) -> dict[str, Package]:
    chosen = {}
    for target in targets:
        package = package_for(packages, target.device_class)
        if package is None:
            raise _no_release_for(target, {package.manifest.device_class for package in packages})
        chosen[target.name] = package
    return chosen


def _no_release_for(target: Target, classes: set[str]) -> UsageError:
    return UsageError(
        f"{target.name} is of class {target.device_class!r}; the releases are for {', '.join(sorted(classes))}",
        hint="--device-class NAME, or device_class of the target or of the model in deploy.yaml",
    )


def _template(
    arguments: argparse.Namespace, config: Config | None, package: Package, keys: dict[str, bytes]
) -> DeviceJob:
    """Returns a job with all that is the same for every device; its target is empty."""
    return DeviceJob(
        target=Target("", None),
        package=package,
        nonce=_selection.nonce(),
        holder=_selection.holder(),
        options=PlanOptions(
            arguments.provision, bool(keys), arguments.verify, _selection.named_keys(arguments, config)
        ),
        pace=_selection.pace_of(arguments, config),
        keys=tuple(keys.items()),
        offline=arguments.offline,
        wheels=arguments.wheels,
    )


def _dry_run(arguments: argparse.Namespace, config: Config | None, jobs: list[DeviceJob], rules: Rules) -> int:
    report = _query.run_jobs(arguments, config, "deploy --dry-run", jobs, plan_job)
    plans = plans_of(report)
    found, left = waves.divide([job.target for job in jobs], rules.waves)
    if not arguments.json:
        _plans.show(found, left, plans, report, _rows_of([job.package for job in jobs]))
        _plans.show_figures({job.package.directory for job in jobs})
    _output.write_reports(arguments, report, lambda: page_of(report))
    if arguments.json:
        names = [{"label": wave.label, "devices": wave.devices} for wave in found]
        print(json_codec.dumps({"plans": plans, "waves": names}))
    return report.exit_code
