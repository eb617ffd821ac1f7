"""Says which fixtures a wrapped test has, if the wrapper gives it the others itself."""

from collections.abc import Callable
from inspect import Signature, signature
from typing import Any


def takes_fixtures_of(test: Any, function: Callable[..., Any], given: str) -> None:
    """Have pytest give ``test`` the fixtures of ``function``, but for the parameter ``given``."""
    del test.__wrapped__  # pytest would look at its parameters
    asked = signature(function).parameters.values()
    test.__signature__ = Signature([each for each in asked if each.name != given])
