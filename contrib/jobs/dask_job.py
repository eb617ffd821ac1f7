"""Transcribes what a manifest lists and has no output yet, on the workers of Dask.

    phonofs manifest --parquet ~/manifest --since 2026-01
    python dask_job.py ~/manifest /srv/transcripts --engine whisper_engine:transcribe

Again after a crash, every ten minutes to stay up to date, and with --prune to remove what was made
of recordings that were withdrawn. The engine is a function MODULE:NAME that takes a binary file and
returns what JSON can hold. Each machine that runs workers needs a daemon: phonofs serve. With
--source s3://PROFILE they need none: they read by S3 from one that was started with --listen, and
find it as all programs do (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY).
"""

import argparse
import sys
from pkgutil import resolve_name

import cloudpickle
import outputs
from dask.distributed import Client, as_completed
from outputs import Outputs, Row, batches, is_recording, rows_of

cloudpickle.register_pickle_by_value(outputs)  # workers need not have the file


def transcribe(rows: list[Row], out: str, engine: str, source: str) -> int:
    """Make the outputs of a batch; return how many recordings could not be had. In a worker."""
    return sum(Outputs(out, engine).make(rows, resolve_name(engine), source))


def main() -> int:
    """0: everything is done; 1: some is not, which the next run tries again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", help="the folder of phonofs manifest --parquet")
    parser.add_argument("out", help="where the outputs go: a folder or a URL")
    parser.add_argument("--engine", default="whisper_engine:transcribe", metavar="MODULE:NAME")
    parser.add_argument("--source", default="", metavar="URL", help="read from here, by s3://")
    parser.add_argument("--scheduler", help="its address; without one, workers on this machine")
    parser.add_argument("--workers", type=int, default=2, help="on this machine")
    parser.add_argument("--batch", type=int, default=100, help="the most recordings in a task")
    parser.add_argument("--gpu", action="store_true", help="a task takes the resource GPU=1")
    parser.add_argument("--prune", action="store_true", help="also remove what was withdrawn")
    given = parser.parse_args()
    rows, place = rows_of(given.manifest), Outputs(given.out, given.engine)
    if given.prune:
        print(f"{place.prune(rows)} outputs of withdrawn recordings removed")
    todo = [*batches(place.missing(filter(is_recording, rows)), given.batch)]
    failed = absent = 0
    local = {"n_workers": given.workers, "threads_per_worker": 1, "dashboard_address": None}
    with Client(given.scheduler) if given.scheduler else Client(**local) as client:
        futures = client.map(
            transcribe, todo, out=given.out, engine=given.engine, source=given.source,
            retries=3, pure=False, resources={"GPU": 1} if given.gpu else None,
        )  # fmt: skip
        for future in as_completed(futures):
            if future.status == "finished":
                absent += future.result()
            else:
                failed += 1
                print(f"a batch failed: {future.exception()!r}", file=sys.stderr)
            future.release()
    print(f"{len(todo) - failed} of {len(todo)} batches done, {absent} recordings not there")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
