"""Who works and calls in the made-up account, and what they say. Nobody here exists.

Telephone numbers are those set aside for fiction (NANP 555-01xx, Ofcom 020 7946 0xxx).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Agent:
    """Someone who takes calls."""

    name: str
    email: str
    user_id: str
    extension: str


def _agent(name: str, extension: str) -> Agent:
    first, last = name.lower().split()
    return Agent(name, f"{first}.{last}@example.com", f"ag{first}{last}UserId"[:22], extension)


AGENTS = (
    _agent("Alex Wilber", "1001"),
    _agent("Priya Raman", "1002"),
    _agent("Jonas Lindqvist", "1003"),
    _agent("Chiara Esposito", "1004"),
    _agent("Samuel Okafor", "1005"),
    _agent("Mei Tanaka", "1006"),
    _agent("Diego Fuentes", "1007"),
    _agent("Hannah Weiss", "1008"),
)

QUEUES = (("Support", "801"), ("Billing", "802"), ("Sales", "803"), ("Returns", "804"))

CALLERS = (
    "Ruth Calloway", "Omar Haddad", "Ingrid Solberg", "Paul Nakamura", "Leila Farouk",
    "Tom Ashworth", "Grace Mbeki", "Victor Antunes", "Nora Keane", "Bill Pruitt",
    "Zoë Laurent", "Henrik Dahl", "Cell Phone   CA", "WIRELESS CALLER", "M,DENNIS",
    "Harbour Dental", "Northgate Motors", "Bluebird Bakery",
)  # fmt: skip

AWKWARD = (
    "Müller & Söhne GmbH",
    "Anna/../../etc/passwd",
    "..",
    "-rf *",
    "שרה כהן",
    "محمد علي",
    "evil\u202egnp.3pm",
    "Bell\x07 and \x1b[31mred\x1b[0m",
    "two\nlines\tand a tab",
    "🎧 DJ Ömür 🎶",
    "  padded  with   spaces  ",
    "",
    "CON",
    'quotes "and" <angles> | pipes: why? *',
    "A very long name " + "of a company that never ends " * 12,
    "Café Zoe\u0301",
    "Café Zoé",
    "café zoé",
    "nul\x00inside",
    "zero\u200bwidth\ufeff",
    "$(reboot); `id` && echo %s",
    "Ends with a dot.",
    "half a \ud83d emoji",
)


@dataclass(frozen=True, slots=True)
class Topic:
    """What a call is about: turns (agent first, then in turn), and what is written of it."""

    name: str
    turns: tuple[str, ...]
    notes: str
    summary: str
    mood: float


TOPICS = (
    Topic(
        "invoice",
        (
            "Thank you for calling, how can I help you today?",
            "Hi, my invoice for last month is forty dollars higher than usual.",
            "I am sorry about that, let me open the invoice and look at it with you.",
            "It says late fee, but I paid on the third.",
            "You are right, the payment arrived in time. I will remove the late fee.",
            "Great, will I get a corrected invoice?",
            "Yes, the corrected invoice is in your mailbox within an hour.",
            "Perfect, thank you for the quick help.",
        ),
        "Late fee charged in error, removed. Corrected invoice sent by mail.",
        "The customer disputed a late fee; the agent confirmed the payment and removed the fee.",
        0.6,
    ),
    Topic(
        "delivery",
        (
            "Good day, you are speaking with the support team.",
            "My parcel was due on Tuesday and the tracking has not moved since.",
            "May I have the order number, please?",
            "It is seven seven four one nine.",
            "Thank you. The parcel is held at the depot because the house number is missing.",
            "Oh, that is number twelve, second floor.",
            "I have added it. The parcel goes out for delivery tomorrow before noon.",
            "Good, I will be at home.",
        ),
        "Order 77419 stuck at depot, house number added. Delivery tomorrow before noon.",
        "A delayed parcel: the address lacked a house number, which the agent added.",
        0.3,
    ),
    Topic(
        "password",
        (
            "Welcome to the help desk, what can I do for you?",
            "I cannot log in since this morning, it says my password has expired.",
            "I can send you a reset link. Is the address on file still right?",
            "Yes, it is the same one.",
            "The link is on its way, it is good for thirty minutes.",
            "Got it. New password accepted, I am in.",
            "Wonderful. Is there anything else?",
            "No, that was all, goodbye.",
        ),
        "Password expired, reset link sent, caller logged in during the call.",
        "The caller's password had expired; a reset link solved it during the call.",
        0.8,
    ),
    Topic(
        "outage",
        (
            "Technical support, how may I help?",
            "Our phones have been dead for an hour, all twelve of them.",
            "I see an outage in your area, the engineers are on site.",
            "This is the second outage this month, I want to cancel the contract.",
            "I understand. I can offer you a credit for the month while we fix it.",
            "A credit does not answer my customers' calls.",
            "I have set up forwarding to your mobile right now.",
            "All right, but somebody must call me back with an explanation.",
        ),
        "OutageLog, second this month. Forwarding set up. Wants a call back, threatens to cancel.",
        "An unhappy customer reported a repeated outage; forwarding set up, call back promised.",
        -0.7,
    ),
    Topic(
        "refund",
        (
            "Returns department, good morning.",
            "I sent the headset back two weeks ago and have not seen the refund.",
            "Let me check. The return was scanned on Monday.",
            "And when do I get my money?",
            "The refund was approved just now, it takes three to five working days.",
            "Can you confirm that in writing?",
            "Of course, you will get a confirmation by mail.",
            "Thanks, then I will wait.",
        ),
        "Headset return scanned Monday, refund approved, confirmation mailed.",
        "A refund for a returned headset was approved; it takes three to five working days.",
        0.1,
    ),
    Topic(
        "appointment",
        (
            "Hello, scheduling, what is it about?",
            "I need to move my installation appointment from Friday.",
            "Monday at ten or Wednesday at two would be free.",
            "Wednesday at two, please.",
            "Done. The technician calls you half an hour before.",
            "Can he also look at the router?",
            "I have put a note in the order for the router.",
            "Lovely, see you on Wednesday.",
        ),
        "Installation moved to Wednesday 14:00, technician to check the router as well.",
        "The installation appointment was moved to Wednesday at two, with a check of the router.",
        0.5,
    ),
)

VOICEMAILS = (
    "Hello, please call me back about the quotation, you have my number.",
    "Hi, this is about the open invoice, could somebody call me tomorrow morning?",
    "I tried to reach the returns department, the headset is broken again.",
)

COMMENTS = (
    "Very friendly and quick, thank you.",
    "It took too long, but it was solved.",
    "I would rather have written a mail.",
)
