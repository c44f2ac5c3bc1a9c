"""What becomes of members of the front that fail once the search is over."""

import pytest

from deepmaker_jax import arch, final, run_folder
from deepmaker_jax.events import Exported, Note
from deepmaker_jax.export import save_weights
from deepmaker_jax.ledger import Ledger, read
from tests.dying import DEADLY, export
from tests.export.networks import random_variables
from tests.standin import StandIn
from tests.test_search import finish, of_kind, prepare
from tests.tiny import DIGITS, TINY


def finished(steps):
    """Returns (events, what a generator returns)."""
    events = []
    while True:
        try:
            events.append(next(steps))
        except StopIteration as end:
            return events, end.value


@pytest.mark.parametrize(
    "failure",
    [
        ("diverged", "training loss nan or a weight is not finite"),
        ("failed", "its worker died (signal 9)"),
        ("failed", "out of memory: JaxRuntimeError: RESOURCE_EXHAUSTED (runner.py:1)"),
    ],
)
def test_a_member_whose_final_training_fails_says_why_and_the_others_are_trained(tmp_path, failure):
    s = prepare(tmp_path / "ledger.jsonl", StandIn(), generations=1)
    _, records = finish(s)
    s = s._replace(ledger=Ledger(s.ledger.path))  # `finish` has closed it
    members = final.choose_members(s, records)
    bad, *good = [record["id"] for record in members]
    assert good
    s = s._replace(executor=StandIn(failing={bad}, failure=failure))
    _, finals = finished(final.train_members(s, members, tmp_path, num_images=100))
    found = {m["id"]: m for m in final.front_document(s, members, finals, {})["members"]}
    s.ledger.close()
    assert (found[bad]["status"], found[bad]["reason"]) == failure
    assert {found[id]["status"] for id in good} == {"ok"}
    last = [record for record in read(s.ledger.path) if record["id"] == bad][-1]
    assert (last["fidelity"]["name"], last["status"], last["reason"]) == ("final", *failure)


def test_a_final_training_that_failed_is_done_again_although_its_weights_are_there(tmp_path):
    s = prepare(tmp_path / "ledger.jsonl", StandIn(), generations=1)
    _, records = finish(s)
    s = s._replace(ledger=Ledger(s.ledger.path))
    members = final.choose_members(s, records)
    failing = StandIn(failing={members[0]["id"]}, failure=("failed", "its worker died (signal 9)"))
    s = s._replace(executor=failing)
    finished(final.train_members(s, members, tmp_path, num_images=100))
    # The worker had written them, and the host was killed before it wrote the ledger's line.
    network = arch.from_json(members[0]["arch"])
    weights = run_folder.weights_path(tmp_path, members[0]["id"])
    save_weights(weights, network, random_variables(network))
    s = s._replace(executor=StandIn())
    _, finals = finished(final.train_members(s, members, tmp_path, num_images=100))
    s.ledger.close()
    assert {record["status"] for record in finals.values()} == {"ok"}


def test_a_member_whose_export_dies_is_told_and_the_others_are_exported(tmp_path, monkeypatch):
    monkeypatch.setattr(final, "do_export", export)
    run_folder.make_folders(tmp_path)
    ids = [DEADLY, "1" * 12]
    events, made = finished(
        final.export_members({id: {} for id in ids}, tmp_path, DIGITS, config=TINY, num_workers=1)
    )
    assert [event.id for event in of_kind(events, Exported)] == ids[1:]
    (note,) = of_kind(events, Note)
    assert note.text.startswith(f"member {DEADLY} was not exported: BrokenProcessPool: ")
    assert note.text.endswith("; run again to retry")
    assert made[DEADLY].manifest["reason"].startswith("not exported: ")
    assert "reason" not in made["1" * 12].manifest
