"""Bulk downloads: zips that are made ready over a few questions, as the service documents them."""

import io
import json
import warnings
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from phonofs.demo.account import Item
from phonofs.demo.answers import Answer, of_bytes, of_json, refusal
from phonofs.demo.routes import Call, wants_presigned

if TYPE_CHECKING:
    from phonofs.demo.service import Service

MOST_BYTES = 2 * 1000**3
"""The service's limit on a zip."""
MOST_IDS = 10_000

_NEXT = {"NOT_STARTED": "IN_PROGRESS", "IN_PROGRESS": "DONE"}


@dataclass(slots=True)
class _Job:
    """One zip: which objects, and how far it is. Each question moves it on by a step."""

    name: str
    region: str
    ids: list[str]
    status: str = "NOT_STARTED"

    def shown(self) -> dict[str, object]:
        return {"zipName": self.name, "status": self.status, "content": self.ids}


class Bulk:
    """The jobs of this run. Owns them; invariant: a job's key is its zip's name."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._jobs: dict[str, _Job] = {}
        self._made = 0

    def start(self, call: Call) -> Answer:
        """``POST /bulk/download/start``."""
        ids = _ids(call.request.body)
        if ids is None:
            return refusal(400, "the body must be a list of ids")
        items = self._items(call.region, ids)
        if not items:
            return refusal(404, "none of these objects can be read")
        if sum(item.content.size for item in items) > MOST_BYTES:
            return refusal(400, "more than 2 GB")
        self._made += 1
        job = _Job(f"download-{self._made}.zip", call.region, ids)
        self._jobs[job.name] = job
        return of_json(200, {"zipName": job.name, "status": job.status})

    def listing(self, call: Call) -> Answer:
        """``GET /bulk/download/status``."""
        return of_json(200, [job.shown() for job in self._jobs.values()])

    def status(self, call: Call) -> Answer:
        """``GET /bulk/download/status/{zipName}``; asking moves the job on."""
        job = self._jobs.get(call.id)
        if job is None:
            return refusal(404, "no such zip")
        job.status = _NEXT.get(job.status, job.status)
        if job.status == "DONE" and len(self._items(job.region, job.ids)) < len(job.ids):
            job.status = "PARTIAL_DONE"
        shown = job.shown()
        if wants_presigned(call.request) and "DONE" in job.status:
            path = f"/store/{quote(job.region, safe='')}/zips/{job.name}"
            shown["url"] = self._service.presigned(path)
        return of_json(200, shown)

    def get(self, call: Call) -> Answer:
        """``GET /bulk/download/{zipName}``: the zip; members are named by ``objectName``."""
        job = self._jobs.get(call.id)
        if job is None or "DONE" not in job.status:
            return refusal(404, "no such zip, or not ready")
        return of_bytes(200, _zip(self._items(job.region, job.ids)), "application/zip")

    def cancel(self, call: Call) -> Answer:
        """``POST /bulk/download/cancel/{zipName}``."""
        job = self._jobs.get(call.id)
        if job is None:
            return refusal(404, "no such zip")
        if job.status in _NEXT:
            job.status = "CANCELLED"
        return of_json(200, job.shown())

    def clear(self, call: Call) -> Answer:
        """``PUT /bulk/download/clear``: forget the zips (the objects stay)."""
        self._jobs.clear()
        return of_json(200, [])

    def _items(self, region: str, ids: list[str]) -> list[Item]:
        found = (self._service.account.item(region, id) for id in ids)
        return [item for item in found if item is not None and item.state == "AVAILABLE"]


def _zip(items: list[Item]) -> bytes:
    body = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(body, "w", zipfile.ZIP_STORED) as zipped:
        warnings.simplefilter("ignore")  # two members of one name: the service does that
        for item in items:
            name = (item.name or item.id).encode("utf-8", "replace").decode()
            info = zipfile.ZipInfo(name, date_time=(2020, 1, 1, 0, 0, 0))
            with zipped.open(info, "w", force_zip64=True) as member:
                for piece in item.content.pieces(0, item.content.size):
                    member.write(piece)
    return body.getvalue()


def _ids(body: bytes) -> list[str] | None:
    try:
        ids = json.loads(body)
    except (ValueError, RecursionError):
        return None
    fits = isinstance(ids, list) and 0 < len(ids) <= MOST_IDS
    return ids if fits and all(isinstance(id, str) for id in ids) else None
