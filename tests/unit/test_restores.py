"""What was asked back is pending until it came, went, or nobody need wait any longer."""

import json

import pytest

from phonofs.errors import Gone, Malformed
from phonofs.model import Record, State
from phonofs.restores import GIVEN_UP_S, Restores, why_not_restored


def record(id: str, state: str) -> Record:
    return Record(id, "us-east", "t", "", "", 1, 0, 0, state, "", {}, b"{}")


def test_a_restore_is_pending_until_the_object_is_available_or_gone():
    """A change that leaves it archived settles nothing."""
    restores = Restores()
    restores.asked("us-east", ["a", "b", "c"], 100.0)
    restores.asked("uk", ["a"], 50.0)
    assert restores.statistics(100.0) == {"pending": 4, "oldest_at": 50.0}
    assert not restores.settle([("changed", record("a", State.ARCHIVED))])
    assert restores.settle([("changed", record("a", State.AVAILABLE))])
    assert restores.settle([("removed", record("b", State.REVOKED))])
    assert restores.statistics(100.0)["pending"] == 2


def test_it_survives_a_remount_and_not_for_ever():
    """As a note of JSON; after twice what the service says it takes, it is forgotten."""
    restores = Restores()
    restores.asked("uk", ["a"], 100.0)
    again = Restores.of_note(json.loads(json.dumps(restores.note())))
    assert again.statistics(100.0) == {"pending": 1, "oldest_at": 100.0}
    late_s = 101.0 + GIVEN_UP_S
    assert again.statistics(late_s) == {"pending": 0, "oldest_at": None}
    again.asked("uk", ["b"], late_s)
    assert again.statistics(late_s) == {"pending": 1, "oldest_at": late_s}
    assert len(again.note()) == 1


@pytest.mark.parametrize("note", [None, [], 3, [["a"]], [["uk", "a", "x"]]])
def test_a_note_that_is_not_one_is_none(note):
    """Whatever an older version may have kept."""
    assert Restores.of_note(note).statistics(100.0) == {"pending": 0, "oldest_at": None}


def test_an_object_that_is_not_restored_is_named():
    assert "object 7" in why_not_restored("7", Malformed("status 400"))
    assert why_not_restored("7", Gone("object 7 does not exist")) == "object 7 does not exist"
