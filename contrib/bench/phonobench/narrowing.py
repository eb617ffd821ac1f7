"""What a filter leaves open once some fields are known, and the times it can hold for. Pure."""

import math

from phonofs.fakeservice.fiql import TRUE, And, Comparison, Expression, Fields, Or, matches

FALSE = Or(())


def given(expression: Expression, known: Fields) -> Expression:
    """What is left of the filter once the ``known`` fields are put in: TRUE, FALSE or a rest."""
    match expression:
        case Comparison(field):
            if field not in known:
                return expression
            return TRUE if matches(expression, known) else FALSE
        case And(parts):
            rest = tuple(p for p in (given(part, known) for part in parts) if p != TRUE)
            return FALSE if FALSE in rest else And(rest)
        case Or(parts):
            rest = tuple(p for p in (given(part, known) for part in parts) if p != FALSE)
            return TRUE if TRUE in rest else Or(rest)


def span(expression: Expression, field: str) -> tuple[float, float]:
    """Half-open bounds on ``field`` (whole numbers) outside which the filter cannot hold."""
    match expression:
        case Comparison():
            return _span_of(expression) if expression.field == field else (-math.inf, math.inf)
        case And(parts):
            spans = [span(part, field) for part in parts] or [(-math.inf, math.inf)]
            return max(low for low, _ in spans), min(high for _, high in spans)
        case Or(parts):
            spans = [span(part, field) for part in parts] or [(0.0, 0.0)]
            return min(low for low, _ in spans), max(high for _, high in spans)


def _span_of(comparison: Comparison) -> tuple[float, float]:
    value = int(comparison.value)
    return {
        "==": (value, value + 1),
        "=ge=": (value, math.inf),
        "=gt=": (value + 1, math.inf),
        "=lt=": (-math.inf, value),
        "=le=": (-math.inf, value + 1),
    }.get(comparison.operator, (-math.inf, math.inf))
