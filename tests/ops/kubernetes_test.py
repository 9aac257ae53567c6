#!/usr/bin/env python3
"""ops/kubernetes, rendered: valid for Kubernetes, and its parts fit each other, the images and the programs.
Usage: kubernetes_test.py SOURCE_DIR PROGRAM_DIR VENV_DIR [unittest arguments]
VENV_DIR is made at the first run, with kubernetes-validate (whose schemas lie in its package) from PyPI."""

import base64
import functools
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from needs import needs, needs_tools

SOURCE, PROGRAMS, VENV = (pathlib.Path(argument).resolve() for argument in sys.argv[1:4])
KUBERNETES = SOURCE / "ops" / "kubernetes"
VALIDATOR = "kubernetes-validate==1.31.0"
SCHEMA = "1.31"
OVERLAYS = ("base", "overlays/dev", "overlays/production")
SERVICES = ("gateway", "router", "vision-encoder", "decoder", "expert-shard")


def python_with_validator():
    """The Python of the virtual environment; None if it cannot be made."""
    stamp = VENV / VALIDATOR
    if not stamp.exists():
        shutil.rmtree(VENV, ignore_errors=True)
        for command in ([sys.executable, "-m", "venv", VENV], [VENV / "bin" / "pip", "install", "--quiet", VALIDATOR]):
            if subprocess.run(command, stdout=subprocess.DEVNULL).returncode != 0:
                return None
        stamp.touch()
    return VENV / "bin" / "python"


if __name__ == "__main__" and pathlib.Path(sys.prefix).resolve() != VENV:
    python = python_with_validator()
    if python:
        os.execv(python, [python, *sys.argv])
    print(f"{VALIDATOR} cannot be installed into {VENV}")
    sys.exit(1 if os.environ.get("CI") == "true" else 0)

import yaml  # noqa: E402  (of the virtual environment)


def old_kustomize():
    """Whether kubectl is Debian's 1.20, whose kustomize 2.0 calls some fields by their former names."""
    version = json.loads(subprocess.run(["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True, check=True).stdout)
    return int(re.match(r"\d+", version["clientVersion"]["minor"]).group()) < 21


def with_former_names(folder):
    """Rewrites the kustomization files of a copy for kustomize 2.0; what they mean stays."""
    for path in folder.rglob("kustomization.yaml"):
        document = yaml.safe_load(path.read_text())
        resources = document.pop("resources", [])
        document["resources"] = [name for name in resources if (path.parent / name).is_file()]
        document["bases"] = [name for name in resources if (path.parent / name).is_dir()]
        document["patchesStrategicMerge"] = [patch["path"] for patch in document.pop("patches", [])]
        path.write_text(yaml.safe_dump(document))


def render(overlay):
    """(text, documents) of a folder of ops/kubernetes."""
    with tempfile.TemporaryDirectory() as copy:
        ops = SOURCE / "ops"
        if old_kustomize():
            ops = pathlib.Path(copy) / "ops"
            shutil.copytree(SOURCE / "ops", ops)
            with_former_names(ops)
        done = subprocess.run(["kubectl", "kustomize", ops / "kubernetes" / overlay], capture_output=True, text=True)
        if done.returncode != 0 or done.stderr:
            raise AssertionError(f"{overlay}: {done.stderr}")
        return done.stdout, list(yaml.safe_load_all(done.stdout))


def matches(labels, wanted):
    return all(labels.get(key) == value for key, value in wanted.items())


def quantity(text):
    """CPUs or bytes of a Kubernetes quantity."""
    number, unit = re.fullmatch(r"([0-9.]+)(m|[KMG]i)?", str(text)).groups()
    return float(number) * {None: 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[unit]


def flattened(settings):
    return {f"{section}.{key}": value for section, values in settings.items() for key, value in values.items()}


class Program:
    """What a service's program says of itself."""

    def __init__(self, service):
        path = PROGRAMS / f"moesaic-{service}"
        needs(path.is_file(), str(path))
        self.help = subprocess.run([path, "--help"], capture_output=True, text=True, check=True).stdout
        self.flags = set(re.findall(r"--[a-z][a-z-]*", self.help))

    def knows(self, key):
        return "--" + re.sub(r"[._]", "-", key) in self.flags

    def default(self, key):
        return re.search(r"--" + re.sub(r"[._]", "-", key) + r"\b.*?\[([^\]]*)\]", self.help, re.DOTALL).group(1)


class Rendered:
    def __init__(self, overlay):
        self.text, self.documents = render(overlay)
        self.sets = {d["metadata"]["name"]: d for d in self.of("StatefulSet")}
        self.maps = {d["metadata"]["name"]: d["data"] for d in self.of("ConfigMap")}

    def of(self, kind):
        return [d for d in self.documents if d["kind"] == kind]

    def pods(self):
        """{StatefulSet: (labels, pod spec, its one container)}"""
        return {name: (d["spec"]["template"]["metadata"]["labels"], d["spec"]["template"]["spec"],
                       d["spec"]["template"]["spec"]["containers"][0]) for name, d in self.sets.items()}

    def role(self, name):
        return self.sets[name]["metadata"]["labels"]["app.kubernetes.io/name"]

    def volume(self, name, kind):
        return next(v[kind] for v in self.pods()[name][1]["volumes"] if kind in v)

    def settings(self, name):
        return flattened(yaml.safe_load(self.maps[self.volume(name, "configMap")["name"]]["config.yaml"]))

    def environment(self, name):
        return {e["name"]: e.get("value") for e in self.pods()[name][2]["env"]}

    def ports(self, name):
        return {p["name"]: p["containerPort"] for p in self.pods()[name][2]["ports"]}

    def most_pods(self, name):
        for scaler in self.of("HorizontalPodAutoscaler"):
            if scaler["spec"]["scaleTargetRef"]["name"] == name:
                return scaler["spec"]["maxReplicas"]
        return self.sets[name]["spec"]["replicas"]


def each_overlay(test):
    @functools.wraps(test)
    def run(self):
        for overlay, rendered in self.rendered.items():
            with self.subTest(overlay):
                test(self, rendered)
    return run


def each_set(test):
    @functools.wraps(test)
    def run(self):
        for overlay, rendered in self.rendered.items():
            for name in rendered.sets:
                with self.subTest(overlay, statefulset=name):
                    test(self, rendered, name)
    return run


class KubernetesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        needs_tools("kubectl")
        cls.rendered = {overlay: Rendered(overlay) for overlay in OVERLAYS}

    def validate(self, text):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(text)
            file.flush()
            done = subprocess.run([VENV / "bin" / "kubernetes-validate", "--strict", "-k", SCHEMA, file.name], capture_output=True, text=True)
        output = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, output)
        self.assertNotRegex(output, r"(?i)warn|skipp|error")

    def test_schemas_hold_and_no_kind_is_unknown(self):
        expected = {"Namespace": 1, "ServiceAccount": 1, "NetworkPolicy": 8, "PodDisruptionBudget": 6, "ConfigMap": 5, "Service": 7, "StatefulSet": 6}
        more = {"overlays/production": {"HorizontalPodAutoscaler": 3, "PersistentVolumeClaim": 1}}
        for overlay, rendered in self.rendered.items():
            with self.subTest(overlay):
                self.validate(rendered.text)
                kinds = [d["kind"] for d in rendered.documents]
                self.assertEqual({kind: kinds.count(kind) for kind in kinds}, {**expected, **more.get(overlay, {})})

    def test_the_validator_finds_faults(self):
        text = self.rendered["base"].text
        for good, bad in (("periodSeconds: 2", "periodSecond: 2"), ("replicas: 1", "replicas: one")):
            self.assertIn(good, text)
            with self.assertRaises(AssertionError):
                self.validate(text.replace(good, bad, 1))

    @each_overlay
    def test_every_object_is_in_the_namespace(self, rendered):
        for document in rendered.documents:
            if document["kind"] != "Namespace":
                self.assertEqual(document["metadata"]["namespace"], "moesaic", document["metadata"]["name"])

    @each_set
    def test_selectors_select_their_own_pods_alone(self, rendered, name):
        selector = rendered.sets[name]["spec"]["selector"]["matchLabels"]
        chosen = [other for other, (labels, _, _) in rendered.pods().items() if matches(labels, selector)]
        self.assertEqual(chosen, [name])

    @each_overlay
    def test_services_lead_to_ports_that_exist(self, rendered):
        services = {s["metadata"]["name"]: s["spec"] for s in rendered.of("Service")}
        for name, spec in services.items():
            chosen = [p for p, (labels, _, _) in rendered.pods().items() if matches(labels, spec["selector"])]
            self.assertEqual(len(chosen), 1, name)
            for port in spec["ports"]:
                self.assertEqual(rendered.ports(chosen[0])[port["targetPort"]], port["port"], name)
        for name, document in rendered.sets.items():
            headless = services[document["spec"]["serviceName"]]
            self.assertEqual(headless["clusterIP"], "None")
            self.assertTrue(headless["publishNotReadyAddresses"])

    @each_set
    def test_members_know_where_the_router_listens(self, rendered, name):
        routers = [f"router-{i}=tcp://router-{i}.router:{rendered.ports('router')['control']}" for i in range(rendered.sets["router"]["spec"]["replicas"])]
        self.assertEqual(rendered.settings(name)["router.endpoints"], ",".join(routers))
        if rendered.role(name) == "router":
            self.assertEqual(rendered.environment(name)["MOESAIC_ROUTER_LISTEN"], f"tcp://$(POD_IP):{rendered.ports(name)['control']}")
            self.assertEqual(rendered.environment(name)["MOESAIC_TRANSPORT_LISTEN"], f"tcp://$(POD_IP):{rendered.ports(name)['dispatch']}")
        elif "data" in rendered.ports(name):
            self.assertEqual(rendered.environment(name)["MOESAIC_TRANSPORT_LISTEN"], f"tcp://$(POD_IP):{rendered.ports(name)['data']}")

    @each_set
    def test_transport_is_in_the_documented_range_and_admin_where_the_program_has_it(self, rendered, name):
        for port_name, port in rendered.ports(name).items():
            if port_name in ("data", "control", "dispatch"):
                self.assertIn(port, range(7400, 7500))
        self.assertEqual(str(rendered.ports(name)["admin"]), Program(rendered.role(name)).default("admin.port"))

    @each_set
    def test_probes_ask_the_admin_port(self, rendered, name):
        container = rendered.pods()[name][2]
        for probe, path in (("startupProbe", "/health"), ("livenessProbe", "/health"), ("readinessProbe", "/ready")):
            self.assertEqual(container[probe]["httpGet"], {"path": path, "port": "admin"})

    def test_images_are_targets_of_the_dockerfile_in_this_version(self):
        targets = re.findall(r"^FROM \S+ AS (\S+)$", (SOURCE / "docker" / "Dockerfile").read_text(), re.MULTILINE)
        version = re.search(r"project\(moesaic VERSION (\S+)", (SOURCE / "CMakeLists.txt").read_text()).group(1)
        for rendered in self.rendered.values():
            for name in rendered.sets:
                self.assertIn(rendered.role(name), targets)
                self.assertEqual(rendered.pods()[name][2]["image"], f"moesaic/{rendered.role(name)}:{version}")

    @each_set
    def test_pods_are_confined(self, rendered, name):
        _, spec, container = rendered.pods()[name]
        self.assertEqual(len(spec["containers"]), 1)
        self.assertIs(spec["automountServiceAccountToken"], False)
        self.assertIs(spec["enableServiceLinks"], False)
        pod = spec["securityContext"]
        self.assertTrue(pod["runAsNonRoot"] and pod["runAsUser"] == 10001)
        self.assertEqual(pod["seccompProfile"], {"type": "RuntimeDefault"})
        self.assertEqual(container["securityContext"], {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                                        "capabilities": {"drop": ["ALL"]}})
        # What may be written is bounded and goes with the pod.
        small = {volume["name"] for volume in spec["volumes"] if "sizeLimit" in volume.get("emptyDir", {})}
        self.assertEqual([mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly") and mount["name"] not in small], [])
        self.assertTrue(all(not any(key.startswith("host") for key in volume) for volume in spec["volumes"]))

    @each_set
    def test_settings_fit_the_resources(self, rendered, name):
        limits = rendered.pods()[name][2]["resources"]["limits"]
        self.assertLessEqual(set(limits), {"cpu", "memory"})
        settings = rendered.settings(name)
        if "engine.threads" in settings:
            self.assertEqual(settings["engine.threads"], math.ceil(quantity(limits["cpu"])))
        for key in ("kv.bytes", "shard.capacity_bytes"):
            self.assertLessEqual(settings.get(key, 0), quantity(limits["memory"]))

    @each_set
    def test_pods_have_time_to_drain_and_shards_most(self, rendered, name):
        _, spec, container = rendered.pods()[name]
        drain = rendered.settings(name)["limits.drain_seconds"]
        wait = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        self.assertGreaterEqual(spec["terminationGracePeriodSeconds"], drain + wait + 5)
        if rendered.role(name) == "expert-shard":
            self.assertGreater(drain, rendered.settings("decoder")["limits.drain_seconds"])

    @each_overlay
    def test_members_agree_on_the_precision(self, rendered):
        self.assertEqual({rendered.settings(name)["model.compute"] for name in rendered.sets}, {"bf16"})

    @each_set
    def test_programs_know_every_setting(self, rendered, name):
        program = Program(rendered.role(name))
        for key in rendered.settings(name):
            self.assertTrue(program.knows(key), key)
        for variable in rendered.environment(name):
            if variable.startswith("MOESAIC_"):
                self.assertTrue(program.knows(variable.removeprefix("MOESAIC_").lower()), variable)

    @each_overlay
    def test_network_policies_name_pods_and_ports_that_exist_on_both_sides(self, rendered):
        policies = {p["metadata"]["name"]: p["spec"] for p in rendered.of("NetworkPolicy")}
        self.assertEqual(policies["default-deny"], {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
        pods = rendered.pods()

        def chosen(selector):
            found = {name for name, (labels, _, _) in pods.items() if matches(labels, selector.get("matchLabels", {}))}
            self.assertTrue(found, selector)
            return found

        ways = {"ingress": set(), "egress": set()}  # (from, to, port)
        for spec in policies.values():
            own = chosen(spec["podSelector"])
            for direction, side in (("ingress", "from"), ("egress", "to")):
                for rule in spec.get(direction, []):
                    for peer in rule[side]:
                        if "namespaceSelector" in peer:
                            continue
                        others = chosen(peer["podSelector"])
                        ends = ((f, t) for f in (others if side == "from" else own) for t in (own if side == "from" else others))
                        for source, target in ends:
                            for port in rule["ports"]:
                                self.assertIn(port["port"], rendered.ports(target))
                                ways[direction].add((source, target, port["port"]))
        # The way to a router is open to all members at both ends; a router needs none to itself.
        self.assertEqual(ways["ingress"], ways["egress"])
        roles = {(rendered.role(f), rendered.role(t), port) for f, t, port in ways["ingress"] if port != "control"}
        self.assertEqual(roles, {("gateway", "decoder", "data"), ("gateway", "vision-encoder", "data"), ("decoder", "router", "dispatch"),
                                 ("decoder", "expert-shard", "data"), ("router", "expert-shard", "data")})
        outside = [rule for spec in policies.values() for rule in spec.get("ingress", []) for peer in rule["from"] if "namespaceSelector" in peer]
        self.assertEqual(sorted(port["port"] for rule in outside for port in rule["ports"]), ["admin", "http"])

    @each_overlay
    def test_disruption_budgets_cover_each_set(self, rendered):
        covered = []
        for budget in rendered.of("PodDisruptionBudget"):
            covered += [name for name, (labels, _, _) in rendered.pods().items() if matches(labels, budget["spec"]["selector"]["matchLabels"])]
            self.assertEqual(budget["spec"]["maxUnavailable"], 1)
        self.assertEqual(sorted(covered), sorted(rendered.sets))

    @each_overlay
    def test_shards_and_routers_are_never_scaled_by_load(self, rendered):
        scaled = {h["spec"]["scaleTargetRef"]["name"] for h in rendered.of("HorizontalPodAutoscaler")}
        self.assertLessEqual(scaled, {"gateway", "vision-encoder", "decoder"})
        for name in scaled:
            self.assertNotIn("replicas", rendered.sets[name]["spec"])

    def test_placement_matches_the_groups_and_their_replicas(self):
        for overlay, rendered in self.rendered.items():
            with self.subTest(overlay):
                placement = yaml.safe_load(rendered.maps[rendered.volume("router", "configMap")["name"]]["placement.yaml"])
                self.assertEqual(rendered.settings("router")["placement.file"], "/etc/moesaic/placement.yaml")
                wanted = {entry["match"]["group"]: entry.get("replicas", 1) for entry in placement["shards"]}
                shards = {name: document for name, document in rendered.sets.items() if rendered.role(name) == "expert-shard"}
                self.assertEqual(wanted, {name.removeprefix("expert-shard-"): document["spec"]["replicas"] for name, document in shards.items()})
                for name in shards:
                    self.assertIn(f"group={name.removeprefix('expert-shard-')},", rendered.environment(name)["MOESAIC_NODE_LABELS"])

    def test_production_keeps_replicas_of_a_shard_apart(self):
        rendered = self.rendered["overlays/production"]
        for name, (labels, spec, _) in rendered.pods().items():
            if rendered.role(name) == "expert-shard":
                rule = spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
                self.assertTrue(matches(labels, rule["labelSelector"]["matchLabels"]))
                self.assertEqual(rule["labelSelector"]["matchLabels"]["moesaic.io/group"], labels["moesaic.io/group"])
                self.assertEqual(rule["topologyKey"], "kubernetes.io/hostname")

    def test_keys_are_made_for_every_pod_there_may_be(self):
        with tempfile.TemporaryDirectory() as folder:
            binary = PROGRAMS / "moesaic"
            needs(binary.is_file(), str(binary))
            command = [KUBERNETES / "make_keys.sh", f"{folder}/keys"]
            environment = {**os.environ, "BIN": str(PROGRAMS)}
            made = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            self.validate(made)
            secrets = {d["metadata"]["name"]: d["data"] for d in yaml.safe_load_all(made)}
            for rendered, name in ((r, n) for r in self.rendered.values() for n in r.sets):
                data = secrets[rendered.volume(name, "secret")["secretName"]]
                names = {f"{rendered.role(name)}-{name}-{pod}.secret" for pod in range(rendered.most_pods(name))}
                self.assertLessEqual(names, set(data))
                # Its own keys and no other's.
                self.assertTrue(all(key == "known_keys" or key.startswith(f"{rendered.role(name)}-{name}-") for key in data))
                known = base64.b64decode(data["known_keys"]).decode()
                for key in names:
                    self.assertIn(base64.b64decode(data[key]).decode().split()[1], known)
            # Again: nothing changes.
            self.assertEqual(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout, made)

    def test_monitoring_holds_every_board_and_rule(self):
        text, documents = render("overlays/monitoring")
        self.validate(text)
        held = {key for document in documents if document["kind"] == "ConfigMap" for key in document["data"]}
        self.assertIn("moesaic.yml", held)
        for path in [*(SOURCE / "ops" / "grafana").glob("*.json"), *(SOURCE / "ops" / "alerts").glob("*.rules.y*ml")]:
            self.assertIn(path.name, held)
        scrape = yaml.safe_load(next(d["data"]["moesaic.yml"] for d in documents if "moesaic.yml" in d["data"]))
        self.assertEqual(scrape["scrape_configs"][0]["kubernetes_sd_configs"][0]["namespaces"], {"names": ["moesaic"]})

    def test_texts_are_tidy(self):
        needs_tools("yamllint")
        rules = "{extends: relaxed, rules: {line-length: {max: 140}}}"
        done = subprocess.run(["yamllint", "-s", "-d", rules, KUBERNETES], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]], verbosity=2)
