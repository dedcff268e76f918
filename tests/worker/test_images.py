"""The container files, checked without containers: start commands parse, paths exist, nothing runs privileged."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from bitwright.cli.parser import build_parser
from bitwright.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
#: Where the linters of the development environment lie.
BIN = Path(sys.executable).parent
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
MANIFESTS = [
    document
    for path in sorted((ROOT / "docker" / "k8s").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
PODS = [document["spec"]["template"]["spec"] for document in MANIFESTS if document["kind"] == "Deployment"]
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}


def commands() -> list[list[str]]:
    found = [shlex.split(match) for path in DOCKERFILES for match in _json_commands(path)]
    found += [service["command"] for service in OURS.values()]
    found += [container["command"] for pod in PODS for container in pod["containers"]]
    return found


def named(manifest: dict[str, Any]) -> str:
    """What a manifest is about: its own name, or that of what it scales."""
    return str(manifest["spec"].get("scaleTargetRef", manifest["metadata"])["name"])


def _json_commands(path: Path) -> list[str]:
    lines = re.findall(r"^CMD (\[.*\])$", path.read_text(), flags=re.MULTILINE)
    return [shlex.join(yaml.safe_load(line)) for line in lines]


def test_there_is_something_to_check():
    assert len(DOCKERFILES) == 3
    assert len(commands()) == 9
    assert {document["kind"] for document in MANIFESTS} == {"Deployment", "Service", "HorizontalPodAutoscaler"}


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_start_command_is_one_of_ours(words):
    assert words[0] == "bitwright"
    args = build_parser().parse_args(words[1:])
    assert callable(args.handler)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_images_run_unprivileged_from_pinned_parts(path):
    text = path.read_text()
    last_stage = text.rpartition("\nFROM ")[2]
    assert "USER 10001" in last_stage
    assert ":latest" not in text
    assert "requirements/lock.txt" in text
    assert not re.search(r"^ADD |curl .*\|", text, flags=re.MULTILINE)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_has_nothing_to_say(path):
    done = subprocess.run([BIN / "hadolint", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_compose_follows_its_specification():
    words = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "docker" / "compose.yaml"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", ["1.31", "1.36"])
def test_manifests_follow_the_schemas_of_kubernetes(version):
    for document in MANIFESTS:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_images_hold_compiled_code_and_no_compiler(path):
    build, _, last = path.read_text().rpartition("\nFROM ")
    assert "python -m solvers.native.build" in build
    assert "python -m gpu_kernels.build" in build or "api" in path.name
    assert "g++" in build
    assert "g++" not in last


@pytest.mark.parametrize("name", sorted(OURS))
def test_compose_services_are_confined_and_set_known_settings(name):
    service = OURS[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert "no-new-privileges:true" in service["security_opt"]
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    fields = {f"BITWRIGHT_{field.upper()}" for field in Settings.model_fields}
    assert set(service["environment"]) <= fields


def test_compose_waits_for_health_and_keeps_no_password():
    for service in OURS.values():
        for other, how in service["depends_on"].items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in COMPOSE["services"][other]
    text = (ROOT / "docker" / "compose.yaml").read_text()
    assert set(re.findall(r"bitwright:(.*?)@postgres", text)) == {"${POSTGRES_PASSWORD:?set a password}"}
    assert "noeviction" in text


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod["containers"][0]["image"])
def test_pods_are_confined_and_bounded(pod):
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    security = container["securityContext"]
    assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert {"requests", "limits"} <= set(container["resources"])
    fields = {f"BITWRIGHT_{field.upper()}" for field in Settings.model_fields}
    assert {variable["name"] for variable in container["env"]} <= fields
    secret = [variable for variable in container["env"] if variable["name"].endswith(("_URL", "_KEY"))]
    assert secret
    assert all("secretKeyRef" in variable["valueFrom"] for variable in secret)
    assert "livenessProbe" in container


def test_the_api_has_all_three_probes():
    (api,) = [pod["containers"][0] for pod in PODS if "api" in pod["containers"][0]["image"]]
    paths = {api[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"/startupz", "/readyz", "/livez"}
    health = (ROOT / "service" / "routes" / "health.py").read_text()
    assert all(f'"{path}"' in health for path in paths)


def test_metrics_are_scraped_with_a_key_not_by_annotation():
    """A scrape by annotation sends no key, would be answered 401, and nothing would ever be scaled."""
    assert not [one for one in MANIFESTS if "prometheus.io/scrape" in str(one)]
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docker" / "README.md").read_text(), flags=re.DOTALL)
    (told,) = [yaml.safe_load(block) for block in blocks]
    assert "credentials_file" in told["scrape_configs"][0]["authorization"]
    assert told["externalRules"][0]["seriesQuery"] in (ROOT / "service" / "metrics.py").read_text()


def test_scaling_follows_a_metric_that_the_api_has():
    scalers = [document for document in MANIFESTS if document["kind"] == "HorizontalPodAutoscaler"]
    assert len(scalers) == 2
    for scaler in scalers:
        watched = [metric["external"]["metric"] for metric in scaler["spec"]["metrics"]]
        assert all(f'"{metric["name"]}"' in (ROOT / "service" / "metrics.py").read_text() for metric in watched)
        (workers,) = [one for one in MANIFESTS if one["kind"] == "Deployment" and named(one) == named(scaler)]
        words = workers["spec"]["template"]["spec"]["containers"][0]["command"]
        served = [word for before, word in pairwise(words) if before == "--queue"]
        assert [metric["selector"]["matchLabels"]["queue"] for metric in watched] == served, "of its own queues alone"
