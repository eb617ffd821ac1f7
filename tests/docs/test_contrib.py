"""What contrib/ ships is well formed, and its README says what was tried."""

import importlib.util
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from yamllint import linter
from yamllint.config import YamlLintConfig

from phonofs.config import BY_NAME, OPTIONS
from phonofs.process.systemd import Watchdog
from phonofs.units import parse_rate, parse_size
from tests.support.kubernetes import faults_of, manifest_of, manifests_of
from tests.support.manifest import parse

ROOT = Path(__file__).resolve().parents[2]
CONTRIB = ROOT / "contrib"
SCRIPTS = ("demo", "test", "dev/setup", "dev/audit", "packaging/build-deb", "container/entrypoint")
UNITS = [path for path in CONTRIB.glob("systemd/*/*") if path.suffix != ".sysusers"]


def lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_readme_of_contrib_names_what_is_shipped() -> None:
    """Every unit, recipe and completion, and nothing that is not there."""
    text = (CONTRIB / "README.md").read_text(encoding="utf-8")
    targets = {target.rstrip("/") for target in re.findall(r"\]\((?!https?:)([^)#]+)", text)}
    for target in targets:
        assert (CONTRIB / target).exists(), target
    for folder in ("systemd", "packaging", "samba", "container", "completions"):
        assert any(target.split("/")[0] == folder for target in targets)
    for path in [*UNITS, *CONTRIB.glob("container/*")]:
        assert str(path.relative_to(CONTRIB)) in targets, path


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completions_are_those_of_the_commands(shell: str) -> None:
    """Otherwise: python contrib/dev/make_completions.py."""
    spec = importlib.util.spec_from_file_location("made", CONTRIB / "dev/make_completions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = CONTRIB / "completions" / module.NAMES[shell]
    assert path.read_text(encoding="utf-8") == module.completion(shell)


def test_what_is_installed_has_all_extras() -> None:
    """A package or an image cannot be added to with pip afterwards.

    What programs of other environments need is not among them: fsspec, and pyarrow, ten times as
    large as everything else.
    """
    extras = "[keyring,encrypt,metrics]"
    for name in ("contrib/packaging/build-deb", "contrib/container/Containerfile", "README.md"):
        assert extras in (ROOT / name).read_text(encoding="utf-8"), name
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    others = {"fsspec", "manifest"}
    assert {name for name, needs in known.items() if needs} == {
        "keyring", "encrypt", "metrics", *others
    }  # fmt: skip


def test_the_daemon_set_gets_no_variables_of_a_service_of_its_name() -> None:
    """They begin as those of the options do."""
    assert "enableServiceLinks: false" in (CONTRIB / "container/daemonset.yaml").read_text()


@pytest.mark.parametrize("kind", ["system", "user"])
def test_a_unit_does_not_hide_its_mount_nor_restart_in_vain(kind: str) -> None:
    """No mount name space; fusermount3 keeps its setuid bit; no storm on a dead key."""
    unit = lines(CONTRIB / "systemd" / kind / "phonofs@.service")
    settings = dict(line.split("=", 1) for line in unit if "=" in line)
    hiding = re.compile("Private|Protect|Bind|Root|Temporary|InaccessiblePaths|DynamicUser|Mount")
    assert not [name for name in settings if hiding.match(name)]
    assert settings["Type"] == "notify"
    assert settings["RestartPreventExitStatus"] == "1 2"
    if kind == "user":
        implying = {"NoNewPrivileges", "SystemCallFilter", "RestrictNamespaces", "LockPersonality"}
        assert not implying & set(settings)
    deadline = next(option for option in OPTIONS if option.name == "read_deadline")
    assert (settings["WatchdogSec"], deadline.default) == ("3min", "60s")
    assert Watchdog("/m", 180.0)._pause_s > 60.0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_units_are_what_systemd_takes(tmp_path: Path) -> None:
    """All but the programs, which need not be here."""
    for path in UNITS:
        if path.parent.name == "system":
            shutil.copy(path, tmp_path / path.name.replace("@", "@work"))
    checked = sorted(str(path) for path in tmp_path.iterdir())
    outcome = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *checked],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in outcome.stderr.splitlines() if str(tmp_path) in line]
    assert said == []


def test_the_daemonset_shares_the_folder_above_the_mount() -> None:
    """So that a crash is mended without a pod of the node being started anew."""
    manifest = parse((CONTRIB / "container/daemonset.yaml").read_text(encoding="utf-8"))
    pod = manifest["spec"]["template"]["spec"]
    assert manifest["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert pod["priorityClassName"] == "system-node-critical"
    assert pod["enableServiceLinks"] is False
    [container] = pod["containers"]
    [mountpoint] = container["args"]
    mount = next(each for each in container["volumeMounts"] if "mountPropagation" in each)
    assert mount["mountPropagation"] == "Bidirectional"
    assert str(Path(mountpoint).parent) == mount["mountPath"]
    [volume] = [each for each in pod["volumes"] if each["name"] == mount["name"]]
    assert volume["hostPath"] == {"path": mount["mountPath"], "type": "DirectoryOrCreate"}
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["exec"]["command"][-1] == mountpoint
    image = (CONTRIB / "container/Containerfile").read_text(encoding="utf-8")
    assert f'CMD ["{mountpoint}"]' in image
    text = (CONTRIB / "docs/administration.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    reader = parse(example)
    [volume] = reader["volumes"]
    [mount] = reader["containers"][0]["volumeMounts"]
    assert volume["hostPath"]["path"] == mount["mountPath"] == str(Path(mountpoint).parent)
    assert mount["mountPropagation"] == "HostToContainer"


MANIFESTS = sorted(CONTRIB.glob("container/*.yaml"))
STYLE = YamlLintConfig(
    "{extends: default, rules: {line-length: {max: 100}, document-start: disable}}"
)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_manifest_is_what_kubernetes_takes(path: Path) -> None:
    """By the models of its API: nothing is unknown, missing or of another type."""
    text = path.read_text(encoding="utf-8")
    assert [str(problem) for problem in linter.run(text, STYLE)] == []
    for manifest in manifests_of(text):
        assert faults_of(manifest) == []
        if manifest["kind"] in ("Pod", "DaemonSet", "Deployment"):
            check_pod(manifest)


def check_pod(manifest: dict) -> None:
    """Each volume is there, and the pod is the one that is selected."""
    pod = manifest["spec"].get("template", manifest)["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted <= volumes, container["name"]
    selector = manifest["spec"].get("selector", {}).get("matchLabels", {})
    labels = manifest["spec"].get("template", manifest)["metadata"].get("labels", {})
    assert selector.items() <= labels.items()


def test_a_fault_in_a_manifest_would_be_found() -> None:
    text = (CONTRIB / "container/serve-daemonset.yaml").read_text(encoding="utf-8")
    for right, wrong in (
        ("terminationGracePeriodSeconds: 20", 'terminationGracePeriodSeconds: "20"'),
        ("runAsNonRoot: true", "runAsNoRoot: true"),
        ("mountPath: /run/phonofs-serve", "path: /run/phonofs-serve"),
        ("value: 60/min", "value: 60"),
    ):
        assert right in text
        assert faults_of(manifest_of(text.replace(right, wrong, 1)))


def test_pods_that_read_through_the_daemon_are_given_what_they_need_and_no_more() -> None:
    """The same user, the same two folders at the same places, and nothing of the key."""
    serving, reading = (
        manifest_of((CONTRIB / f"container/{name}.yaml").read_text(encoding="utf-8"))
        for name in ("serve-daemonset", "serve-reader")
    )
    pod, reader = serving["spec"]["template"]["spec"], reading["spec"]
    [daemon], [program], [folders] = (
        pod["containers"], reader["containers"], pod["initContainers"]
    )  # fmt: skip
    for name in ("runAsUser", "runAsGroup", "runAsNonRoot"):
        assert pod["securityContext"][name] == reader["securityContext"][name]
    assert reader["nodeSelector"] == pod["nodeSelector"]

    def shared(container: dict, of: dict) -> dict[str, str]:
        folders = {each["name"]: each.get("hostPath") for each in of["volumes"]}
        return {
            mount["mountPath"]: folder["path"]
            for mount in container["volumeMounts"]
            if (folder := folders[mount["name"]])
        }

    assert len(shared(daemon, pod)) == 2
    assert shared(daemon, pod) == shared(program, reader) == shared(folders, pod)
    assert folders["args"] == list(shared(daemon, pod))
    assert all(mount["readOnly"] for mount in program["volumeMounts"])
    assert not [volume for volume in reader["volumes"] if "hostPath" not in volume]
    variables = {each["name"]: each["value"] for each in daemon["env"]}
    named = {option.variable for option in OPTIONS}
    assert {name for name in variables if name.startswith("PHONOFS_")} <= named
    assert parse_rate(variables[BY_NAME["max_rate"].variable])
    assert program["env"] == [each for each in daemon["env"] if each["name"] == "PHONOFS_CACHE_DIR"]
    for path in (variables["PHONOFS_CACHE_DIR"], variables["XDG_RUNTIME_DIR"]):
        assert any(Path(path).is_relative_to(folder) for folder in shared(daemon, pod))
    for container in (daemon, program, folders):
        security = container["securityContext"]
        assert not security["allowPrivilegeEscalation"]
        assert security["readOnlyRootFilesystem"]
        assert security["capabilities"]["drop"] == ["ALL"]


def test_the_pods_of_the_s3_door_fit_together() -> None:
    """The names, ports, labels and files that one document has from another, and no privilege."""
    claim, serving, service, policy = manifests_of(
        (CONTRIB / "container/s3-deployment.yaml").read_text(encoding="utf-8")
    )
    reading = manifest_of((CONTRIB / "container/s3-reader.yaml").read_text(encoding="utf-8"))
    spec = serving["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    pod, labels = spec["template"]["spec"], spec["template"]["metadata"]["labels"]
    for selector in (service["spec"]["selector"], policy["spec"]["podSelector"]["matchLabels"]):
        assert selector.items() <= labels.items()
    claims = {each["persistentVolumeClaim"]["claimName"] for each in pod["volumes"][:1]}
    assert claims == {claim["metadata"]["name"]}
    [daemon], [program] = pod["containers"], reading["spec"]["containers"]
    ports = {each["name"]: each["containerPort"] for each in daemon["ports"]}
    [port] = service["spec"]["ports"]
    words = dict(word.removeprefix("--").split("=") for word in daemon["args"])
    assert words["listen"] == f"0.0.0.0:{ports[port['targetPort']]}"
    paths = [mount["mountPath"] for mount in daemon["volumeMounts"]]
    for word in ("keys", "tls-cert", "tls-key"):
        assert words[word] in paths or str(Path(words[word]).parent) in paths
    variables = {each["name"]: each["value"] for each in daemon["env"]}
    named = {option.variable for option in OPTIONS}
    assert {name for name in variables if name.startswith("PHONOFS_")} <= named
    assert str(Path(words["keys"]).parent) == variables["CREDENTIALS_DIRECTORY"]
    assert parse_size(variables["PHONOFS_CACHE_SIZE"]) < parse_size(
        claim["spec"]["resources"]["requests"]["storage"].removesuffix("i")
    )
    endpoint = f"https://{service['metadata']['name']}:{port['port']}"
    assert {"name": "AWS_ENDPOINT_URL", "value": endpoint} in program["env"]
    [allowed] = policy["spec"]["ingress"]
    [source] = allowed["from"]
    wanted = source["podSelector"]["matchLabels"]
    assert wanted.items() <= reading["metadata"]["labels"].items()
    assert [each["port"] for each in allowed["ports"]] == [port["targetPort"]]
    assert f'Bucket="{daemon["command"][2]}"' in program["args"][0]
    for container in (daemon, program):
        security = container["securityContext"]
        assert not security["allowPrivilegeEscalation"]
        assert security["readOnlyRootFilesystem"]
        assert security["capabilities"] == {"drop": ["ALL"]}


def test_a_volume_by_s3_is_of_the_bucket_that_is_served() -> None:
    volume, claim = manifests_of((CONTRIB / "container/s3-volume.yaml").read_text(encoding="utf-8"))
    serving = manifests_of((CONTRIB / "container/s3-deployment.yaml").read_text(encoding="utf-8"))
    [daemon] = serving[1]["spec"]["template"]["spec"]["containers"]
    assert volume["spec"]["csi"]["volumeAttributes"]["bucketName"] == daemon["command"][2]
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    about = claim["metadata"]
    assert volume["spec"]["claimRef"] == {each: about[each] for each in ("namespace", "name")}
    assert {"read-only", "force-path-style"} <= set(volume["spec"]["mountOptions"])


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_scripts_are_what_shellcheck_likes() -> None:
    scripts = [str(CONTRIB / name) for name in SCRIPTS]
    assert all(os.access(script, os.X_OK) for script in scripts)
    outcome = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert outcome.stdout == ""


CLOCK = re.compile(r"assert .*time\.(?:monotonic|perf_counter|process_time|thread_time)\(\)[^<]*<")


def test_every_bound_on_time_has_the_common_scale() -> None:
    """On a slow machine all bounds are widened alike: see tests/support/timing.py."""
    compared = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in (ROOT / "tests").rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if CLOCK.search(line)
    ]
    assert compared == []


def test_a_recipe_for_jobs_is_short_enough_to_be_read() -> None:
    for name in ("dask_job.py", "ray_job.py"):
        text = (CONTRIB / "jobs" / name).read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 80, name
