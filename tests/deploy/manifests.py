"""Holds deploy/kubernetes and docker-compose.yml to what they promise: manifests.py REPOSITORY.

Nothing here asks a cluster: what is looked at is that the documents fit each other. Prints the
configuration of the ConfigMap, for the gateway's own check.
"""

import sys
from pathlib import Path

import yaml

SELECTOR = {"app.kubernetes.io/name": "portcullis"}


def main(root: Path) -> None:
    documents = {}
    for file in sorted((root / "deploy/kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            key = (document["kind"], document["metadata"]["name"])
            assert key not in documents, f"{key} is there twice"
            assert document["metadata"]["labels"] == SELECTOR, key
            documents[key] = document
    kinds = {kind: document["apiVersion"] for (kind, _), document in documents.items()}
    assert kinds == {
        "ConfigMap": "v1",
        "StatefulSet": "apps/v1",
        "Service": "v1",
        "PodDisruptionBudget": "policy/v1",
        "NetworkPolicy": "networking.k8s.io/v1",
    }, kinds

    stateful = documents["StatefulSet", "portcullis"]["spec"]
    pod = stateful["template"]["spec"]
    (container,) = pod["containers"]
    selects_the_pods(documents, stateful)
    ports_fit(documents, container)
    volumes_fit(documents, stateful, pod, container)
    runs_with_nothing_to_spare(pod, container)
    compose_is_closed(root)
    print(documents["ConfigMap", "portcullis"]["data"]["portcullis.toml"])


def selects_the_pods(documents: dict, stateful: dict) -> None:
    assert stateful["selector"]["matchLabels"] == SELECTOR
    assert stateful["template"]["metadata"]["labels"] == SELECTOR
    assert documents["PodDisruptionBudget", "portcullis"]["spec"] == {
        "maxUnavailable": 1,
        "selector": {"matchLabels": SELECTOR},
    }
    policy = documents["NetworkPolicy", "portcullis"]["spec"]
    assert policy["podSelector"] == {"matchLabels": SELECTOR}
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    headless = documents["Service", stateful["serviceName"]]["spec"]
    assert headless["clusterIP"] == "None"
    assert stateful["replicas"] >= 2


def ports_fit(documents: dict, container: dict) -> None:
    """Every port that something names is one of the container's."""
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for (kind, name), document in documents.items():
        if kind == "Service":
            assert document["spec"]["selector"] == SELECTOR
            for port in document["spec"]["ports"]:
                assert port["targetPort"] in ports, (name, port)
    clients = {port["targetPort"] for port in documents["Service", "portcullis"]["spec"]["ports"]}
    assert clients == {"postgres", "ssh", "http", "web"}, clients
    for rule in documents["NetworkPolicy", "portcullis"]["spec"]["ingress"]:
        assert rule["from"], "everybody may come in"
        for port in rule["ports"]:
            assert port["port"] in ports, port
            if port["port"] == "metrics":
                assert len(rule["ports"]) == 1, "metrics are for Prometheus alone"
    for probe, path in [("startup", "/healthz"), ("readiness", "/readyz"), ("liveness", "/healthz")]:
        asked = container[f"{probe}Probe"]["httpGet"]
        assert asked == {"path": path, "port": "web", "scheme": "HTTPS"}, asked


def volumes_fit(documents: dict, stateful: dict, pod: dict, container: dict) -> None:
    claims = {claim["metadata"]["name"] for claim in stateful["volumeClaimTemplates"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} == claims | set(volumes)
    assert mounts["/var/lib/portcullis"]["name"] in claims, "recordings have to outlive the pod"
    # As a folder: a single file would not follow the ConfigMap's changes.
    config = mounts["/etc/portcullis/config"]
    assert "subPath" not in config
    (text,) = documents["ConfigMap", volumes[config["name"]]["configMap"]["name"]]["data"].values()
    assert container["args"] == ["serve"]
    file, password = container["env"]
    place = {"name": "PORTCULLIS_CONFIG", "value": "/etc/portcullis/config/portcullis.toml"}
    assert file == place, file
    # A secret stands in no manifest, and every file that the configuration reads is mounted.
    assert not any(kind == "Secret" for kind, _ in documents)
    for line in text.splitlines():
        for quoted in line.split('"')[1::2]:
            if quoted.startswith("/"):
                assert any(quoted.startswith(mount) for mount in mounts), quoted
    secrets = {v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
    assert password["name"] == "PGPASSWORD"
    assert password["valueFrom"]["secretKeyRef"]["name"] in secrets
    for port in container["ports"]:
        listener = f'{port["name"]} = "0.0.0.0:{port["containerPort"]}"'
        assert listener in text, listener
    drain = int(text.split('drain_timeout = "')[1].split('s"')[0])
    assert pod["terminationGracePeriodSeconds"] >= drain + 15, "sealing takes time as well"


def runs_with_nothing_to_spare(pod: dict, container: dict) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001, "the image's user"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]


def compose_is_closed(root: Path) -> None:
    compose = yaml.safe_load((root / "docker-compose.yml").read_text())
    services, volumes = compose["services"], compose["volumes"]
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is open to others: {port}"
            assert name == "gateway", f"{name} can be reached around the gateway"
        for volume in service.get("volumes", []):
            place = volume.split(":")[0]
            if place.startswith("./"):
                assert (root / place).exists(), place
            else:
                assert place in volumes, volume
        if name != "gateway" and "networks" in service:
            assert service["networks"] == ["inside"], name
    assert compose["networks"]["inside"] == {"internal": True}
    gateway = services["gateway"]
    assert gateway["read_only"] and gateway["cap_drop"] == ["ALL"]
    # Each secret is its service's: nobody else but who makes them mounts the volume.
    for volume in (name for name in volumes if name.endswith("-secrets")):
        mounted = {
            name
            for name, service in services.items()
            if any(entry.startswith(f"{volume}:") for entry in service.get("volumes", []))
        }
        assert len(mounted - {"setup", "lines"}) <= 1, (volume, mounted)


main(Path(sys.argv[1]))
