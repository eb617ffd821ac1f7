"""The pods of contrib/container that serve and read by S3, as processes of this machine."""

import subprocess
import sys
from pathlib import Path

from phonofs.demo.dataset import demo_account
from tests.s3.conftest import TODAY
from tests.support.authority import Authority
from tests.support.doors import Served
from tests.support.kubernetes import manifest_of, manifests_of
from tests.support.mounts import standing, until
from tests.support.s3 import ACCESS_KEY, SECRET_KEY, Endpoint, listens, table, unused_numbers

CONTAINER = Path(__file__).resolve().parents[2] / "contrib/container"


def test_the_pod_reads_what_the_deployment_serves(tmp_path: Path):
    """With the words, variables and kinds of files of the manifests, but other paths."""
    _, serving, _, _ = manifests_of((CONTAINER / "s3-deployment.yaml").read_text())
    reading = manifest_of((CONTAINER / "s3-reader.yaml").read_text())
    [daemon] = serving["spec"]["template"]["spec"]["containers"]
    [program] = reading["spec"]["containers"]
    with standing(demo_account(TODAY)) as stand_in:
        served = Served(stand_in.url, tmp_path / "served", tmp_path / "cache")
        served.environment["CREDENTIALS_DIRECTORY"] = str(tmp_path / "run/phonofs-credentials")
        port = _files_of_the_pod(tmp_path)
        words = [
            word.replace("=/run", f"={tmp_path}/run").replace("0.0.0.0:8444", f"0.0.0.0:{port}")
            for word in daemon["args"]
        ]
        with served.log.open("wb") as log:
            served.process = subprocess.Popen(
                [sys.executable, "-m", "phonofs.cli", *daemon["command"][1:], *words],
                env=served.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            until(lambda: listens(port) or served.process.poll() is not None)
            assert served.process.poll() is None, served.log_text()
            environment = Endpoint("", "calls").environment | {
                "AWS_ENDPOINT_URL": f"https://localhost:{port}",
                "AWS_CA_BUNDLE": str(tmp_path / "ca.pem"),
            }
            assert {each["name"] for each in program["env"]} <= environment.keys()
            done = subprocess.run(
                [sys.executable, *program["command"][1:], *program["args"]], env=environment,
                capture_output=True, text=True, timeout=100,
            )  # fmt: skip
        finally:
            served.clean_up()
    assert done.returncode == 0, done.stderr
    read = sorted(int(line.split()[0]) for line in done.stdout.splitlines())
    assert read == sorted(
        item.content.size for item in stand_in.service.account if item.state == "AVAILABLE"
    )


def _files_of_the_pod(root: Path) -> int:
    """Make the secrets, readable by the group as Kubernetes has them; return a port."""
    folder = root / "run/phonofs-credentials"
    folder.mkdir(parents=True)
    (folder / "keys.toml").write_text(
        table({"name": "reader", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY})
    )
    (folder / "keys.toml").chmod(0o440)
    Authority(root).server("localhost")
    tls = root / "run/phonofs-tls"
    tls.mkdir()
    for name in ("tls.crt", "tls.key"):
        (tls / name).write_bytes((root / "localhost1.pem").read_bytes())
    [port] = unused_numbers(1)
    return port
