"""``python -m phonofs.demo``: the stand-in as a process of its own."""

import argparse
import json
import sys
import time
from datetime import UTC, date, datetime, timedelta
from functools import partial

import trio

from phonofs.demo.dataset import demo_account
from phonofs.demo.endless import EndlessAccount
from phonofs.errors import PhonofsError
from phonofs.fakeservice.account import Account
from phonofs.fakeservice.faults import Faults, load
from phonofs.fakeservice.options import options_from
from phonofs.fakeservice.server import serve_forever
from phonofs.fakeservice.service import Service


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted. Prints one line of JSON once the ports are open."""
    given = _parser().parse_args(arguments)
    try:
        _serve(given)
    except PhonofsError as error:
        print(f"phonofs demo: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def _serve(given: argparse.Namespace) -> None:
    options = options_from(given.set)
    serve = partial(
        serve_forever,
        _account(given, options.customer_id),
        options,
        Faults(load(given.fault)) if given.fault else None,
        port=given.port,
        store_port=given.store_port,
        announce=_announce,
    )
    try:
        trio.run(serve)
    except* KeyboardInterrupt:
        pass  # the way to end it; nothing is kept that would need an orderly end


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m phonofs.demo", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="of the api (default: any)")
    parser.add_argument("--store-port", type=int, default=0, help="of the store (default: any)")
    parser.add_argument("--fault", metavar="PLAN", help="a file, or TOML or JSON itself")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[])
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--today", type=date.fromisoformat, help="last day (default: today, UTC)")
    parser.add_argument("--endless", type=int, metavar="N", help="N objects over --days instead")
    parser.add_argument("--days", type=int, default=1096, help="of --endless (default: 3 years)")
    parser.add_argument("--size", type=int, help="of each object of --endless, in bytes")
    parser.add_argument("--regions", default="us-east", help="joined by ':'")
    return parser


def _account(given: argparse.Namespace, customer_id: str) -> Account:
    now_ms = time.time_ns() // 1_000_000
    today = given.today or datetime.fromtimestamp(now_ms / 1000, UTC).date()
    if given.endless:
        first = today - timedelta(days=given.days - 1)
        return EndlessAccount(given.endless, first, given.days, size=given.size)
    regions = tuple(given.regions.split(":"))
    until_ms = None if given.today else now_ms
    return demo_account(
        today, seed=given.seed, regions=regions, until_ms=until_ms, customer_id=customer_id
    )


def _announce(service: Service) -> None:
    options = service.options
    print(
        json.dumps(
            {
                "url": service.url,
                "store_url": service.store_url,
                "key": options.key,
                "secret": options.secret,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
