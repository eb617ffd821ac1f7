"""Transcribes what a manifest lists and has no output yet, on the actors of Ray Data.

    phonofs manifest --parquet ~/manifest --since 2026-01
    python ray_job.py ~/manifest /srv/transcripts --engine whisper_engine:transcribe

Again after a crash, every ten minutes to stay up to date, and with --prune to remove what was made
of recordings that were withdrawn. The engine is a function MODULE:NAME that takes a binary file and
returns what JSON can hold. Each machine that runs workers needs a daemon: phonofs serve.
"""

import argparse
import sys
from pkgutil import resolve_name
from typing import Any

import outputs
import ray
from outputs import Outputs, is_recording, rows_of
from ray import cloudpickle

cloudpickle.register_pickle_by_value(outputs)  # workers need not have the file


class Transcriber:
    """An actor: it keeps the engine's model, and makes the outputs of one batch after the other."""

    def __init__(self, out: str, engine: str) -> None:
        self.run, self.place = resolve_name(engine), Outputs(out, engine)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return for each recording that had no output whether it was absent."""
        rows = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
        return {"absent": self.place.make(rows, self.run)}


def main() -> int:
    """0: everything is done. If a batch fails three times Ray ends the run: start it again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", help="the folder of phonofs manifest --parquet")
    parser.add_argument("out", help="where the outputs go: a folder or a URL")
    parser.add_argument("--engine", default="whisper_engine:transcribe", metavar="MODULE:NAME")
    parser.add_argument("--workers", type=int, default=2, help="the most actors")
    parser.add_argument("--batch", type=int, default=100, help="the most recordings in a task")
    parser.add_argument("--gpu", action="store_true", help="an actor takes a GPU")
    parser.add_argument("--prune", action="store_true", help="also remove what was withdrawn")
    given = parser.parse_args()
    rows, place = rows_of(given.manifest), Outputs(given.out, given.engine)
    if given.prune:
        print(f"{place.prune(rows)} outputs of withdrawn recordings removed")
    todo = place.missing(filter(is_recording, rows))
    ray.data.DataContext.get_current().actor_task_retry_on_errors = True
    absent = 0
    if todo:
        work = ray.data.from_items(todo).map_batches(
            Transcriber, fn_constructor_args=(given.out, given.engine), batch_size=given.batch,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=given.workers),
            num_gpus=int(given.gpu),
        )  # fmt: skip
        absent = sum(row["absent"] for row in work.iter_rows())
    print(f"{len(todo)} recordings, {absent} of them not there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
