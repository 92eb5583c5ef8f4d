"""`crosslayer audit`: three sections, as tables and as plain data."""

import json
from functools import partial
from pathlib import Path

import pytest

from audit_networks import learned, whole
from commands import Answer, call
from crosslayer import workbench
from crosslayer.attack.trigger import TriggerSearch
from crosslayer.core.audit import Audit
from crosslayer.core.codec import from_plain
from crosslayer.core.design import Design, save_design
from crosslayer.evaluate.audit import audit
from crosslayer.hardware.catalogue import load_target
from crosslayer.plan.arena import plan_arena

SHORT = TriggerSearch(rounds=12, steps=8, batch=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Designs without and with a backdoor into class 5, and the float network of the first."""
    home = tmp_path_factory.mktemp("audit")
    for name, target in (("clean", None), ("planted", 5)):
        graph = whole(learned(2, target))
        save_design(Design(graph=graph, target=load_target("stm32f769"), plan=plan_arena(graph)), home / name)
    save_design(Design(graph=learned(2), target=load_target("stm32f769")), home / "float")
    return home


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbench, "audit", partial(audit, search=SHORT, steps=100))


def audited(*arguments: str | Path) -> tuple[Answer, Audit]:
    answer = call("audit", *arguments, "--data", "digits", "--samples", "150", "--references", "2", "--json")
    assert answer.status in (0, 3), answer.err
    return answer, from_plain(Audit, json.loads(answer.out), "answer")


def test_an_audit_has_three_sections_and_the_status_tells_of_backdoors(folder: Path) -> None:
    answer, found = audited(folder / "clean")
    assert answer.status == 0 and found.backdoors.flagged == ()
    assert [t.target for t in found.backdoors.triggers] == list(range(10))
    assert [one.answers for one in found.extraction] == ["labels", "logits"]
    assert all(one.inputs == "validation split of digits" for one in found.extraction)
    assert all(point.agreement.low < point.agreement.high for one in found.extraction for point in one.curve)
    assert found.membership.samples == 150 and len(found.membership.attacks) == 6
    again, same = audited(folder / "clean")
    assert again.out == answer.out and same == found
    answer, found = audited(folder / "planted", "--float", folder / "float", "--queries", "noise")
    assert answer.status == 3 and found.backdoors.flagged == (5,)
    assert found.backdoors.triggers[5].awakened
    assert found.extraction[0].inputs == "uniform noise"


def test_the_tables_say_what_was_found(folder: Path) -> None:
    answer = call("audit", folder / "planted", "--data", "digits", "--samples", "150", "--references", "2")
    assert answer.status == 3
    said = " ".join(answer.out.split())
    assert "class 5: a trigger too small to be chance" in said
    assert "90 % agreement from labels, validation split of digits" in said
    assert "150 members" in said


def test_what_cannot_be_audited_is_refused(folder: Path) -> None:
    clean, data = folder / "clean", ("--data", "digits")
    for arguments, message in (
        ((folder / "float", *data), "quantize it first"),
        ((clean, "--data", "mnist"), "samples of [8, 8, 1]"),
        ((clean, *data, "--queries", "mnist"), "give data of that shape, or noise"),
        ((clean, *data, "--float", clean), "give the float one"),
        ((clean, *data, "--references", "3"), "in pairs"),
    ):
        answer = call("audit", *arguments)
        assert answer.status == 2 and message in " ".join(answer.err.split()), answer.err
