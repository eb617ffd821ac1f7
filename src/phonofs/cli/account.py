"""Connects a command to the service without a mount."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import trio

from phonofs.config import Settings
from phonofs.credentials import Credentials, CredentialSources, find
from phonofs.errors import unwrap
from phonofs.process.hardening import keep_secrets_in_memory
from phonofs.service.auth import TokenProvider
from phonofs.service.client import Client
from phonofs.service.session import Transport

PATIENCE_S = 20.0
"""How long a user at a terminal waits for a response at most, retries included."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Account:
    """A connection to the service with one key."""

    transport: Transport
    client: Client
    tokens: TokenProvider


def places(settings: Settings) -> CredentialSources:
    """Return where to look for the profile's key and secret, apart from the keyring."""
    return CredentialSources.of(settings, os.environ)


def credentials_of(settings: Settings) -> Credentials:
    """Return the key and secret of a profile. Raises UsageError with the remedy if not found."""
    return find(settings.profile, places(settings))


def ask(settings: Settings, credentials: Credentials, work: Callable[[Account], Awaitable[T]]) -> T:
    """Run ``work`` with a connected account; return its result. Raises PhonofsError."""

    async def main() -> T:
        async with _connected(settings, credentials) as account:
            return await work(account)

    keep_secrets_in_memory()
    try:
        return trio.run(main)
    except BaseExceptionGroup as group:
        raise unwrap(group) from None


@asynccontextmanager
async def _connected(settings: Settings, credentials: Credentials) -> AsyncIterator[Account]:
    async def known() -> Credentials:
        return credentials

    patience_s = min(PATIENCE_S, settings.read_deadline)
    async with (
        Transport(
            settings.api_url,
            max_connections=settings.max_connections,
            max_rate=settings.max_rate,
            timeout_s=min(patience_s, settings.timeout),
        ) as transport,
        trio.open_nursery() as nursery,
    ):
        tokens = TokenProvider(transport, known)
        nursery.start_soon(tokens.run)
        client = Client(transport, tokens, read_deadline_s=patience_s)
        yield Account(transport, client, tokens)
        nursery.cancel_scope.cancel()
