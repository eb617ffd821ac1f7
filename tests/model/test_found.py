"""What the model tests found, each told again in its shortest form."""

import pytest

from tests.model.test_read_model import Plan, read_in_parts
from tests.model.world import run

pytestmark = pytest.mark.expected_log("")


TWO_BYTES = {"fail": "status", "status": 200, "body": "ab", "content_type": "audio/mpeg"}


@pytest.mark.promise("length-is-proved")
@pytest.mark.parametrize("way", ["range", "presign", "redirect", "stream"])
@pytest.mark.parametrize("fault", [TWO_BYTES, {"fail": "json", "value": []}])
def test_two_bytes_in_place_of_a_body_are_not_a_short_file(way, fault):
    """A 200 with something else: no reader gets it, or the end of the file, for its bytes."""
    rules = [{**fault, "kind": ["content", "store"], "count": 1}]
    readers = [[(0, at, count, 0.0)] for at, count in ((0.0, 1), (0.4, 4096), (0.9, 131_072))]
    run(read_in_parts, Plan(way, 0, [2 << 20], rules, readers))


@pytest.mark.parametrize("nth", [[2], [2, 3]])
def test_a_length_is_not_believed_before_its_bytes_are_checked(nth):
    """The false body comes when some of the file was read: its end is not the file's."""
    kinds = {"kind": ["content", "store"], "nth": nth}
    readers = [
        [(0, 0.36, 4096, 0.0), (0, 0.9, 4096, 0.01), (0, 0.2, 4096, 3.0)],
        [(0, 0.33, 4096, 3.0)],
        [(0, 0.19, 131_072, 0.0), (0, 0.5, 100, 0.01)],
    ]
    run(read_in_parts, Plan("range", 0, [2 << 20], [{**TWO_BYTES, **kinds}], readers))


def test_an_empty_file_brought_ahead_is_let_go_again():
    """Nobody opens it: it does not stay pinned for ever."""
    readers = [[(2, 0.0, 131_072, 0.0), (1, 0.0, 131_072, 0.1)]]
    run(read_in_parts, Plan("range", 0, [0, 131_072, 131_072], [], readers))
