"""Which devices a command is for, and which release each of them gets."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.simulation import make_package

from knnkit.config import parse
from knnkit.errors import Unreachable, UsageError
from knnkit.fleet.device.connect import Job, Pace, dial
from knnkit.fleet.targets import Overrides, Target, only, select
from knnkit.release.package import package_for
from knnkit.transport.address import Address
from knnkit.transport.base import Transport

FILE = parse.parse(
    """
model: {name: a, data: {sklearn: iris}}
fleet:
  known_hosts: known_hosts
  defaults: {user: pi, port: 2200, root: /srv/k, identity: ~/key, jump: gate, tags: [all], device_class: big,
             runtime: ai_edge_litert}
  targets:
    - {host: one.example, name: one, tags: [canary]}
    - {host: two.example, port: 22, user: ann, root: ~/k, device_class: small, jump: none, runtime: auto}
    - bob@three.example:2222
    - {host: local}
""",
    base=Path("/fleet"),
    home=Path("/home/me"),
)


def test_targets_take_what_they_do_not_say_from_the_defaults() -> None:
    one, two, three, local = select(FILE)
    common = {"identity": "/home/me/key", "config": None, "known_hosts": ("/fleet/known_hosts",)}
    assert one.address == Address("one.example", "pi", 2200, jump="gate", **common)  # type: ignore[arg-type]
    assert (one.name, one.root, one.device_class, one.tags) == ("one", "/srv/k", "big", ("all", "canary"))
    assert two.address == Address("two.example", "ann", 22, jump="none", **common)  # type: ignore[arg-type]
    assert (two.name, two.root, two.device_class) == ("two.example", "~/k", "small")
    assert three.address == Address("three.example", "bob", 2222, jump="gate", **common)  # type: ignore[arg-type]
    assert (local.name, local.address) == ("local", None)
    assert [target.runtime for target in (one, two, three, local)] == ["ai_edge_litert", "auto"] + [
        "ai_edge_litert"
    ] * 2


def test_a_target_is_named_as_in_the_file_or_written_out() -> None:
    named, alias, written, local = select(FILE, named=["one", "greenhouse", "pi@[2001:db8::1]:2222", "local"])
    assert named.root == "/srv/k"
    assert alias.address == Address("greenhouse", known_hosts=("/fleet/known_hosts",))
    assert written.address == Address("2001:db8::1", "pi", 2222, known_hosts=("/fleet/known_hosts",))
    assert (str(written), local.address) == ("pi@[2001:db8::1]:2222", None)
    assert (alias.root, alias.runtime) == ("~/.knnkit", "auto")


def test_a_name_that_is_nobody_s_is_told_with_the_one_that_is_like_it() -> None:
    (typo,) = select(FILE, named=["three.exmple"])
    (other,) = select(FILE, named=["zzz"])
    assert other.suggestion == "one or two.example or three.example"

    def fail(reason: str) -> str:
        def opener(*_: object) -> Transport:
            raise Unreachable("three.exmple:22: the name does not resolve", hint="is it on?", reason=reason)

        with pytest.raises(Unreachable) as caught:
            dial(Job(typo, pace=Pace(1.0, 0), opener=opener))
        return caught.value.hint

    assert fail("no-such-name") == "did you mean --target three.example? Else: is it on?"
    assert fail("connect") == "is it on?"


def test_tags_and_names_add_up() -> None:
    assert [target.name for target in select(FILE, tags=["canary"])] == ["one"]
    assert [target.name for target in select(FILE, named=["local"], tags=["canary"])] == ["local", "one"]
    assert len(select(FILE, tags=["all"])) == 4


def test_the_command_line_comes_first() -> None:
    said = Overrides("/r", "/i", "j", "/c", "/kh", "small", "tflite_runtime")
    target = select(FILE, named=["one"], overrides=said)[0]
    assert target.address == Address("one.example", "pi", 2200, "/i", "j", "/c", ("/kh", "/fleet/known_hosts"))
    assert (target.root, target.device_class, target.runtime) == ("/r", "small", "tflite_runtime")


def test_a_hint_repeats_what_selects_the_device() -> None:
    """Without -c, `local` is the device of another deploy.yaml, or of none."""
    said = Overrides(deploy_yaml="my fleet.yaml")
    hints = [each.lead("doctor --target HOST") for each in select(FILE, named=["one", "local"], overrides=said)]
    assert hints == [f"doctor --target {name} -c 'my fleet.yaml'" for name in ("one", "local")]
    (here,) = select(FILE, named=["local"], overrides=Overrides(root="a b"))
    assert here.lead("doctor --target HOST") == "doctor --target local --root 'a b'"


@pytest.mark.parametrize(
    ("named", "tags", "said"),
    [
        (["one", "one"], [], "given twice"),
        (["a b"], [], "is not an address"),
        (["pi@a\x1b[2J"], [], r"'pi@a\\x1b\[2J' is not an address"),
        ([], ["canry"], "did you mean 'canary'"),
        ([], ["zebra"], "there are all, canary"),
    ],
)
def test_a_selection_that_makes_no_sense(named: list[str], tags: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        select(FILE, named=named, tags=tags)


@pytest.mark.parametrize(
    ("text", "tag", "said", "hint"),
    [
        (None, "greenhouse", "--on greenhouse: there is no deploy.yaml here", "-c FILE, or fleet: {targets: [{host: "),
        ("model: {name: a, data: {sklearn: iris}}", "x", "deploy.yaml names no targets", "tags: [x]}]} in deploy.yaml"),
        ("fleet: {targets: [pi@one]}", "x", "no target has the tag 'x', or any", "--target one, or tags: [x] of a"),
        ("fleet: {targets: [{host: one, tags: [lab, shed]}]}", "x", "there are lab, shed", "--on lab or --on shed"),
        ("fleet: {targets: [{host: one, tags: [canary]}]}", "canry", "did you mean 'canary'?", "--on canary"),
    ],
)
def test_a_tag_that_nobody_has_is_told_with_what_to_type(text: str | None, tag: str, said: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        select(parse.parse(text) if text else None, tags=[tag])
    assert str(caught.value).startswith(f"--on {tag}: ")
    assert said in str(caught.value)
    assert hint in caught.value.hint


def test_a_hint_selects_this_machine_as_its_user_did() -> None:
    chosen = select(FILE, named=["local"], overrides=Overrides(deploy_yaml="my fleet.yaml", root="/srv/k"))
    assert chosen[0].lead("knnkit provision --target HOST") == (
        "knnkit provision --target local -c 'my fleet.yaml' --root /srv/k"
    )


@pytest.mark.parametrize(
    "own",
    [
        "python -m device_agent rollback",
        "/srv/k/venv/bin/python -m device_agent rollback --root /srv/k",
        "'/a b/venv/bin/python' -m device_agent rollback --root '/a b'",
    ],
)
def test_a_rollback_that_the_agent_proposes_is_typed_here(own: str) -> None:
    lead = select(FILE, named=["one"], overrides=Overrides())[0].lead
    assert lead(f"wait, or: {own}; ask Ann") == "wait, or: knnkit rollback --target one; ask Ann"
    assert lead("python -m device_agent status") == "python -m device_agent status"


def test_nobody_is_selected_without_a_file_or_a_target() -> None:
    with pytest.raises(UsageError, match="no device is named"):
        select(None)


def test_a_report_takes_up_its_own_devices_again() -> None:
    targets = select(FILE)
    assert [target.name for target in only(targets, ["local", "one"], "r.json")] == ["local", "one"]
    with pytest.raises(UsageError, match="'gone', which is not among the targets"):
        only(targets, ["gone"], "r.json")


def test_each_class_of_device_gets_its_own_release_and_the_rest_the_one_for_any() -> None:
    small, general = make_package("1", device_class="small"), make_package("2")
    assert package_for((general, small), "small") is small
    assert package_for((general, small), "big") is general
    assert package_for((small,), "big") is None
    assert Target("x", None).device_class == "any"
