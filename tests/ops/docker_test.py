#!/usr/bin/env python3
"""docker/: the Dockerfile and compose.yaml as texts, and the programs in a folder that holds just what an image does.
Usage: docker_test.py SOURCE_DIR PROGRAM_DIR [unittest arguments]"""

import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

from needs import needs, needs_root, needs_tools

SOURCE = pathlib.Path(sys.argv[1]).resolve()
PROGRAMS = pathlib.Path(sys.argv[2]).resolve()
DOCKER = SOURCE / "docker"
SERVICES = {"gateway": 8085, "vision-encoder": 8081, "router": 8082, "expert-shard": 8083, "decoder": 8084}


def instructions():
    """[(instruction, argument)] of the Dockerfile, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def stages():
    """{stage: (base, [(instruction, argument)])}"""
    found, name = {}, None
    for word, argument in instructions():
        if word == "FROM":
            base, _, name = re.fullmatch(r"(\S+)( AS (\S+))?", argument).groups()
            found[name] = (base, [])
        elif name:
            found[name][1].append((word, argument))
    return found


class DockerfileTest(unittest.TestCase):
    def setUp(self):
        self.stages = stages()

    def values(self, stage, word):
        """Of a stage and those it is built from, nearest first."""
        found = []
        while stage in self.stages:
            base, lines = self.stages[stage]
            found += [argument for name, argument in reversed(lines) if name == word]
            stage = base
        return found

    def test_every_service_is_a_target_and_all_in_one_the_default(self):
        self.assertEqual(list(self.stages), ["build", "runtime", *SERVICES, "all-in-one"])

    def test_nothing_is_taken_from_outside_but_the_base_and_its_packages(self):
        for base, _ in self.stages.values():
            self.assertIn(base, ("${BASE}", "scratch", "runtime"))
        words = [word for word, _ in instructions()]
        self.assertNotIn("ADD", words)
        self.assertNotRegex((DOCKER / "Dockerfile").read_text(), r"https?://(?!127\.0\.0\.1)|curl |wget ")

    def test_the_base_is_pinned_by_who_builds(self):
        self.assertEqual(instructions()[0], ("ARG", "BASE=debian:bookworm-slim"))
        script = (DOCKER / "build.sh").read_text()
        self.assertIn("RepoDigests", script)
        self.assertIn("@sha256:[0-9a-f]{64}$ ]] || fail", script)
        self.assertIn('--build-arg "BASE=$base"', script)

    def test_images_run_as_an_unprivileged_user_without_a_shell(self):
        for target in (*SERVICES, "all-in-one"):
            with self.subTest(target):
                self.assertEqual(self.values(target, "USER")[0], "10001:10001")
                self.assertEqual(self.stages[self.stages[target][0]][0], "scratch")
                for word in ("ENTRYPOINT", "CMD"):
                    for value in self.values(target, word):
                        self.assertIsInstance(json.loads(value), list)

    def test_images_know_their_health_ports_and_labels(self):
        for target, port in {**SERVICES, "all-in-one": 8080}.items():
            with self.subTest(target):
                health = self.values(target, "HEALTHCHECK")[0].partition("CMD ")[2]
                self.assertEqual(json.loads(health), ["/usr/bin/moesaic", "health", "--url", f"http://127.0.0.1:{port}/ready"])
                self.assertIn(str(port), self.values(target, "EXPOSE")[0].split())
                program = "moesaic" if target == "all-in-one" else f"moesaic-{target}"
                self.assertEqual(json.loads(self.values(target, "ENTRYPOINT")[0]), [f"/usr/bin/{program}"])
                for label in ("title", "description", "licenses", "version", "revision", "created", "base.digest"):
                    self.assertIn(f"org.opencontainers.image.{label}=", self.values(target, "LABEL")[0])


class ImageTest(unittest.TestCase):
    """What docker/collect.sh lays out is all that an image has."""

    @classmethod
    def setUpClass(cls):
        needs_tools("ldd", "strip", "dpkg-query")
        needs(PROGRAMS.joinpath("moesaic-decoder").is_file(), str(PROGRAMS / "moesaic-decoder"))
        if re.search(r"lib[at]san", subprocess.run(["ldd", PROGRAMS / "moesaic"], capture_output=True, text=True).stdout):
            raise unittest.SkipTest("a sanitizer's build is not what images hold")
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="moesaic-image-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.image = cls.folder / "image"
        programs = ["moesaic", *(f"moesaic-{service}" for service in SERVICES)]
        subprocess.run([DOCKER / "collect.sh", cls.image, *programs], cwd=PROGRAMS, check=True, stdout=subprocess.DEVNULL)

    def in_image(self, program, *arguments):
        needs_root()
        root = self.folder / program
        if not root.exists():
            shutil.copytree(self.image / "common", root, symlinks=True)
            if program != "moesaic":
                shutil.copytree(self.image / program, root, dirs_exist_ok=True)
        return subprocess.run(["/usr/sbin/chroot", "--userspec=10001:10001", root, f"/usr/bin/{program}", *arguments],
                              env={}, capture_output=True, text=True, timeout=60)

    def test_every_program_starts(self):
        for program in ("moesaic", *(f"moesaic-{service}" for service in SERVICES)):
            with self.subTest(program):
                done = self.in_image(program, "--version")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertRegex(done.stdout, rf"^{program} \d+\.\d+\.\d+")

    def test_the_model_is_there(self):
        done = self.in_image("moesaic", "inspect", "/usr/share/moesaic/models/ernie-vl-demo")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_keys_can_be_made_where_the_volume_will_be(self):
        done = self.in_image("moesaic", "keys", "make-all", "--dir", "/tmp/keys", "router/router-0")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(stat.S_IMODE(os.stat(self.image / "common/var/lib/moesaic/keys").st_mode), 0o700)

    def test_there_is_no_shell_and_packages_are_named(self):
        names = {path.name for path in (self.image / "common").rglob("*")}
        self.assertTrue({"sh", "bash", "curl", "apt", "python3"}.isdisjoint(names))
        packages = (self.image / "common/usr/share/moesaic/packages.txt").read_text().splitlines()
        self.assertIn("libc6", {line.split()[0] for line in packages})
        self.assertTrue(all(re.fullmatch(r"\S+ \S+", line) for line in packages), packages)


class ComposeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        needs_tools("docker-compose")
        cls.text = cls.config({"GRAFANA_PASSWORD": "secret"}).stdout

    @staticmethod
    def config(environment):
        return subprocess.run(["docker-compose", "-f", DOCKER / "compose.yaml", "config"], capture_output=True, text=True,
                              env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment}, timeout=60)

    def setUp(self):
        # Debian's docker-compose brings python3-yaml, for its own Python.
        script = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)"
        done = subprocess.run(["/usr/bin/python3", "-c", script], input=self.text, capture_output=True, text=True, check=True)
        self.document = json.loads(done.stdout)
        self.services = self.document["services"]

    def test_it_is_all_there(self):
        self.assertEqual(set(self.services), {"keys", "gateway", "router", "vision-encoder", "shard-0", "shard-1", "decoder",
                                              "prometheus", "grafana"})

    def test_ports_are_published_on_loopback_alone(self):
        published = [port for service in self.services.values() for port in service.get("ports", [])]
        self.assertEqual(len(published), 3)
        for port in published:
            self.assertRegex(port if isinstance(port, str) else port["host_ip"] + ":", r"^127\.0\.0\.1:")

    def test_there_is_no_default_password(self):
        done = self.config({})
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("GRAFANA_PASSWORD", done.stderr)

    def test_containers_are_confined(self):
        for name, service in self.services.items():
            with self.subTest(name):
                self.assertTrue(service["read_only"])
                self.assertEqual(service["cap_drop"], ["ALL"])
                self.assertEqual(service["security_opt"], ["no-new-privileges:true"])
                self.assertNotIn(service["user"].split(":")[0], ("0", "root"))
                self.assertNotIn("privileged", service)
                self.assertIn(service.get("network_mode", "none"), ("none",))

    def test_images_are_targets_with_their_health(self):
        targets = stages()
        for name, service in self.services.items():
            if "build" not in service:
                continue
            with self.subTest(name):
                target = service["build"]["target"]
                self.assertIn(target, targets)
                self.assertTrue(service["image"].startswith(f"moesaic/{target}:"))
                if target in SERVICES:
                    url = f"http://{service['environment']['MOESAIC_ADMIN_HOST']}:{SERVICES[target]}/ready"
                    self.assertEqual(service["healthcheck"]["test"], ["CMD", "/usr/bin/moesaic", "health", "--url", url])
                    self.assertEqual(service["networks"]["cluster"]["ipv4_address"], service["environment"]["MOESAIC_ADMIN_HOST"])

    def test_every_member_has_a_key_and_knows_the_router(self):
        made = set(self.services["keys"]["command"])
        router = self.services["router"]["environment"]
        for name, service in self.services.items():
            environment = service.get("environment", {})
            if "MOESAIC_NODE_NAME" in environment:
                with self.subTest(name):
                    self.assertIn(f"{service['build']['target']}/{environment['MOESAIC_NODE_NAME']}", made)
                    self.assertEqual(environment["MOESAIC_ROUTER_ENDPOINTS"], "router-0=" + router["MOESAIC_ROUTER_LISTEN"])

    def test_settings_are_known_to_the_programs(self):
        for name, service in self.services.items():
            if service.get("build", {}).get("target") not in SERVICES:
                continue
            program = PROGRAMS / f"moesaic-{service['build']['target']}"
            needs(program.is_file(), str(program))
            known = set(re.findall(r"--[a-z][a-z-]+", subprocess.run([program, "--help"], capture_output=True, text=True).stdout))
            # The environment is common to all services, each takes what it knows; its own keys must be known.
            common = ("ROUTER_DISPATCH", "ROUTER_ENDPOINTS", "MODEL_COMPUTE", "LOG_LEVEL")
            for variable in service["environment"]:
                if variable.removeprefix("MOESAIC_") not in common:
                    with self.subTest(name, variable=variable):
                        self.assertIn("--" + variable.removeprefix("MOESAIC_").lower().replace("_", "-"), known)

    def test_prometheus_scrapes_every_member(self):
        text = (DOCKER / "prometheus" / "prometheus.yml").read_text()
        scraped = set(re.findall(r'"([a-z0-9-]+:\d+)"', text))
        expected = {f"{name}:{SERVICES[service['build']['target']]}" for name, service in self.services.items()
                    if service.get("build", {}).get("target") in SERVICES}
        self.assertEqual(scraped, expected)
        if shutil.which("promtool"):
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder) / "prometheus.yml"
                path.write_text(text.replace("/etc/prometheus/alerts", str(SOURCE / "ops" / "alerts")))
                subprocess.run(["promtool", "check", "config", path], check=True, capture_output=True)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
