"""Compares manifests with the models of the Kubernetes API, more strictly than the API itself."""

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any

import yaml
from lightkube.models import apps_v1, core_v1, networking_v1

MODELS = {
    ("apps/v1", "DaemonSet"): apps_v1.DaemonSet,
    ("apps/v1", "Deployment"): apps_v1.Deployment,
    ("networking.k8s.io/v1", "NetworkPolicy"): networking_v1.NetworkPolicy,
    ("v1", "PersistentVolume"): core_v1.PersistentVolume,
    ("v1", "PersistentVolumeClaim"): core_v1.PersistentVolumeClaim,
    ("v1", "Pod"): core_v1.Pod,
    ("v1", "Service"): core_v1.Service,
}


def manifest_of(text: str) -> dict[str, Any]:
    """Parse a manifest of one document."""
    [made] = manifests_of(text)
    return made


def manifests_of(text: str) -> list[dict[str, Any]]:
    """Parse a manifest."""
    return list(yaml.safe_load_all(text))


def faults_of(manifest: dict[str, Any]) -> list[str]:
    """Return what the model does not know, what it lacks, and what is of another type."""
    model = MODELS[manifest["apiVersion"], manifest["kind"]]
    return list(_faults(manifest, model, manifest["kind"]))


def _faults(value: Any, kind: Any, where: str) -> Iterator[str]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        tried = [list(_faults(value, each, where)) for each in arguments]
        if all(tried):
            yield from min(tried, key=len)
    elif dataclasses.is_dataclass(kind):
        yield from _faults_of_model(value, kind, where)
    elif origin is list:
        if not isinstance(value, list):
            yield f"{where} is no list"
        else:
            for number, each in enumerate(value):
                yield from _faults(each, arguments[0], f"{where}[{number}]")
    elif kind is not Any and not isinstance(value, origin or kind):
        yield f"{where} is no {kind}: {value!r}"
    elif isinstance(value, dict) and not all(isinstance(each, str) for each in value.values()):
        yield f"{where} has values that are no texts: {value}"


def _faults_of_model(value: Any, model: Any, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is no mapping"
        return
    fields = {field.metadata.get("json", field.name): field for field in dataclasses.fields(model)}
    kinds = typing.get_type_hints(model)
    yield from (f"{where}.{name} is not known" for name in value.keys() - fields)
    for name, field in fields.items():
        if name in value:
            yield from _faults(value[name], kinds[field.name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            yield f"{where}.{name} is missing"
