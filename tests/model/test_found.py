"""What the model tests found, each told again in its shortest form."""

import pytest

from tests.model.test_read_model import Plan, read_in_parts
from tests.model.world import run

pytestmark = pytest.mark.expected_log("")


@pytest.mark.parametrize("way", ["range", "presign", "redirect", "stream"])
def test_other_json_in_place_of_a_body_is_not_a_short_file(way):
    """A 200 with two bytes of JSON: no reader gets them, or the end of the file, for its bytes."""
    rules = [{"fail": "json", "value": [], "kind": ["content", "store"], "count": 1}]
    readers = [[(0, at, count, 0.0)] for at, count in ((0.0, 1), (0.4, 4096), (0.9, 131_072))]
    run(read_in_parts, Plan(way, 0, [2 << 20], rules, readers))


def test_an_empty_file_brought_ahead_is_let_go_again():
    """Nobody opens it: it does not stay pinned for ever."""
    readers = [[(2, 0.0, 131_072, 0.0), (1, 0.0, 131_072, 0.1)]]
    run(read_in_parts, Plan("range", 0, [0, 131_072, 131_072], [], readers))
