"""What the service is asked for a search: a filter that leaves out little of what matches. Pure.

Only comparisons for equality are sent, of values without characters that FIQL may read as syntax.
How the service compares a value that is padded or has wildcards is not documented; what it returns
is decided on again.
"""

import re

from phonofs.search.condition import Condition
from phonofs.search.facets import NUMBER_TAGS

_PLAIN = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


def narrowing(condition: Condition) -> str:
    """Return a FIQL filter of which every match of a condition is a result; '' if there is none.

    A record whose tag is padded with spaces, or has a number in another form, may escape it.
    """
    terms = []
    if _PLAIN.fullmatch(condition.call):
        terms.append(f"callId=={condition.call}")
    if condition.number:
        forms = (condition.number, f"+{condition.number}")
        terms.append(f"({','.join(f'{tag}=={form}' for tag in NUMBER_TAGS for form in forms)})")
    return ";".join(terms)
