"""Load in short: see :mod:`tests.fault.soak`; ``contrib/bench/soak`` runs it for minutes."""

import pytest

from tests.fault.soak import soak

pytestmark = pytest.mark.fuse


def test_a_short_soak(tmp_path):
    """Sixty readers over 300 objects for seconds: no wrong byte, all flat, every gauge zero."""
    outcome = soak(tmp_path, 4, 60, 300)
    assert outcome.faults() == []
    assert outcome.log_lines < 100


@pytest.mark.slow
def test_a_longer_soak(tmp_path):
    """Two minutes of 200 readers over 5,000 objects."""
    outcome = soak(tmp_path, 120, 200, 5000)
    assert outcome.faults() == []
    assert outcome.log_lines < 400
