#!/usr/bin/env python3
"""ops/cluster.sh with stand-ins for the programs: what it starts, supervises, and leaves behind. No model, no compiler.
Usage: cluster_script_test.py SOURCE_DIR [unittest arguments]"""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from needs import needs_root, needs_tools

SOURCE = pathlib.Path(sys.argv[1]).resolve()
SCRIPT = SOURCE / "ops" / "cluster.sh"
SERVICES = ("gateway", "router", "vision-encoder", "expert-shard", "decoder")
PROFILE = """settings:
  model.compute: f32
services:
  - role: gateway
    nodes: host
  - role: router
    nodes: a
  - role: expert-shard
    nodes: b, c   # one on each
    node.labels: group=low
  - role: decoder
    nodes: "b"
"""
NAMES = ["gateway-0", "router-0", "shard-0", "shard-1", "decoder-0"]


class Cluster:
    def __init__(self, netns, profile=PROFILE, **environment):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="moesaic-cluster-"))
        (self.folder / "bin").mkdir()
        for name in ("moesaic", *(f"moesaic-{service}" for service in SERVICES)):
            shutil.copy(SOURCE / "tests" / "ops" / "stand_in.py", self.folder / "bin" / name)
            (self.folder / "bin" / name).chmod(0o755)
        (self.folder / "profile.yaml").write_text(profile)
        self.state = self.folder / "state"
        self.environment = {**{key: value for key, value in os.environ.items() if not key.startswith("MOESAIC_")},
                            "STATE": str(self.state), "BIN": str(self.folder / "bin"), "PROFILE": str(self.folder / "profile.yaml"),
                            "NETNS": "yes" if netns else "no", "TIMEOUT": "20", "PORT_SHIFT": str(random.randrange(1, 400) * 50),
                            **environment}

    def run(self, *arguments, **environment):
        # Its services must not hold a pipe of ours: they outlive it.
        with tempfile.TemporaryFile("w+") as output:
            status = subprocess.run([SCRIPT, *arguments], env={**self.environment, **environment}, stdin=subprocess.DEVNULL,
                                    stdout=output, stderr=output, timeout=120).returncode
            output.seek(0)
            return status, output.read()

    def status(self):
        """{name: (pid, state, restarts)}"""
        lines = [line.split() for line in self.run("status")[1].splitlines()[1:]]
        return {line[0]: (line[1], " ".join(line[2:-2]), line[-2]) for line in lines if line[0] in NAMES}

    def pid(self, name):
        return int((self.state / "pid" / f"{name}.pid").read_text())

    def log(self, name):
        return (self.state / "log" / f"{name}.log").read_text()

    def command(self, name):
        lines = (self.state / "command" / name).read_text().splitlines()
        return dict(zip(lines[-2::-2], lines[::-2])), lines

    def not_in(self, wanted, names):
        status = self.status()
        return [name for name in names if status[name][1] != wanted]

    def await_state(self, wanted, *names, seconds=10):
        deadline = time.monotonic() + seconds
        while others := self.not_in(wanted, names):
            if time.monotonic() > deadline:
                raise AssertionError(f"{others} are not {wanted}\n{self.run('status')[1]}" + "".join(map(self.log, others)))
            time.sleep(0.1)

    def close(self):
        self.run("down")
        shutil.rmtree(self.folder)


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class LoopbackClusterTest(unittest.TestCase):
    netns = False

    def setUp(self):
        needs_tools("curl", "flock", "setsid")
        self.cluster = Cluster(self.netns)
        self.addCleanup(self.cluster.close)

    def do(self, *arguments, **environment):
        status, output = self.cluster.run(*arguments, **environment)
        self.assertEqual(status, 0, output)
        return output

    def up(self, **environment):
        output = self.do("up", **environment)
        # `up` takes the gateway's word, and its stand-in does not ask the others.
        self.cluster.await_state("ready", *NAMES)
        return output

    def test_up_starts_what_the_profile_says_and_down_leaves_nothing(self):
        output = self.up()
        self.assertIn("/v1/chat/completions", output)
        self.assertEqual({name: state for name, (_, state, _) in self.cluster.status().items()}, dict.fromkeys(NAMES, "ready"))
        flags, lines = self.cluster.command("shard-1")
        self.assertEqual(flags["--node-labels"], "group=low,node=c")
        self.assertEqual(flags["--node-name"], "shard-1")
        self.assertTrue(flags["--router-endpoints"].startswith("router-0=tcp://"))
        self.assertEqual("netns" in lines, self.netns)
        self.assertIn("'MOESAIC_MODEL_COMPUTE': 'f32'", self.cluster.log("shard-1"))
        self.assertIn("'MOESAIC_ROUTER_SHARDS': '2'", self.cluster.log("router-0"))
        pids = [self.cluster.pid(name) for name in NAMES]
        status, output = self.cluster.run("down")
        self.assertEqual(status, 0, output)
        self.assertFalse(any(map(alive, pids)))
        self.assertFalse((self.cluster.state / "run").exists())
        self.assertIn("drained", self.cluster.log("decoder-0"))
        self.assertEqual(self.cluster.run("down")[0], 0)
        self.assertNotEqual(self.cluster.run("status")[0], 0)

    def test_the_environment_wins_over_the_profile(self):
        self.up(MOESAIC_MODEL_COMPUTE="bf16")
        deadline = time.monotonic() + 10
        while "'MOESAIC_MODEL_COMPUTE': 'bf16'" not in (log := self.cluster.log("decoder-0")):
            self.assertLess(time.monotonic(), deadline, log)
            time.sleep(0.05)

    def test_up_again_changes_nothing_and_other_settings_restart_it(self):
        self.up()
        before = {name: self.cluster.pid(name) for name in NAMES}
        self.up()
        self.assertEqual({name: self.cluster.pid(name) for name in NAMES}, before)
        self.up(MOESAIC_LOG_LEVEL="debug")
        self.assertTrue(set(before.values()).isdisjoint(self.cluster.pid(name) for name in NAMES))

    def test_a_killed_service_comes_back(self):
        self.up()
        before = self.cluster.pid("shard-1")
        self.assertEqual(self.cluster.run("kill", "shard-1")[0], 0)
        deadline = time.monotonic() + 10
        while self.cluster.pid("shard-1") == before and time.monotonic() < deadline:
            time.sleep(0.05)
        self.cluster.await_state("ready", "shard-1")
        self.assertEqual(self.cluster.status()["shard-1"][2], "1")

    def test_a_frozen_service_is_shown_and_thawed(self):
        self.up()
        self.do("freeze", "decoder-0")
        self.cluster.await_state("frozen", "decoder-0")
        self.do("thaw", "decoder-0")
        self.cluster.await_state("ready", "decoder-0")

    def test_down_ends_frozen_services_and_those_without_a_supervisor(self):
        self.up()
        self.do("freeze", "decoder-0")
        os.kill(int((self.cluster.state / "pid" / "shard-0.supervisor").read_text()), signal.SIGKILL)
        pids = [self.cluster.pid(name) for name in NAMES]
        self.assertTrue(all(map(alive, pids)))
        self.assertEqual(self.cluster.run("down")[0], 0)
        self.assertFalse(any(map(alive, pids)))

    def test_pid_files_of_a_crashed_machine_harm_nobody(self):
        self.up()
        self.assertEqual(self.cluster.run("down")[0], 0)
        (self.cluster.state / "pid").mkdir()
        bystander = subprocess.Popen(["sleep", "60"])
        self.addCleanup(bystander.wait)
        self.addCleanup(bystander.kill)
        for kind in ("pid", "supervisor"):
            (self.cluster.state / "pid" / f"shard-0.{kind}").write_text(str(bystander.pid))
        self.up()
        self.assertNotEqual(self.cluster.pid("shard-0"), bystander.pid)
        self.assertIsNone(bystander.poll())

    def test_a_service_that_cannot_start_is_named_with_its_words(self):
        status, output = self.cluster.run("up", MOESAIC_STAND_IN_STATUS="decoder=3")
        self.assertEqual(status, 1)
        self.assertIn("decoder: the fault that was asked for", output)
        self.assertIn("decoder-0 ends at once, again and again", output)

    def test_not_ready_in_time_is_a_failure_that_says_who(self):
        status, output = self.cluster.run("up", MOESAIC_STAND_IN_STATUS="gateway=1", TIMEOUT="2")
        self.assertEqual(status, 1)
        self.assertIn("not ready after 2 s", output)
        self.assertIn("--- gateway-0: ", output)

    def test_unknown_names_are_refused(self):
        self.up()
        for arguments in (("kill", "shard-9"), ("freeze",), ("explode",), ("cut", "z")):
            with self.subTest(arguments):
                self.assertEqual(self.cluster.run(*arguments)[0], 1)


class NamespaceClusterTest(LoopbackClusterTest):
    netns = True

    def setUp(self):
        needs_root()
        needs_tools("ip")
        super().setUp()

    def test_namespaces_come_and_go_with_the_cluster(self):
        def ours():
            found = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
            spaces = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
            return {word.rstrip(":") for word in (found.replace("@", " ") + spaces).split() if word.startswith(prefix)}

        output = self.up()
        prefix = output.partition("namespaces ")[2].partition("-*")[0]
        self.assertRegex(prefix, r"^moe\d+$")
        self.assertEqual(ours(), {prefix, *(f"{prefix}-{node}" for node in "abc")})
        self.assertEqual(self.cluster.run("down")[0], 0)
        self.assertEqual(ours(), set())

    def test_a_node_can_be_cut_off_and_mended(self):
        self.up()
        self.assertEqual(self.cluster.run("cut", "c")[0], 0)
        self.cluster.await_state("not ready", "shard-1")
        self.assertEqual(self.cluster.status()["shard-0"][1], "ready")
        self.assertEqual(self.cluster.run("mend", "c")[0], 0)
        self.cluster.await_state("ready", "shard-1")


class ProfileTest(unittest.TestCase):
    def test_faults_are_named_with_their_line(self):
        faults = {
            "settings:\n  a.b: [1, 2]\n": ":2: a plain value expected",
            "settings:\n\ta.b: c\n": ":2: a tab",
            "other:\n": ":1: not in the subset",
            "services:\n  - role: gateway\n    nodes: host\n  - role: mixer\n    nodes: a\n": 'no role "mixer"',
            "services:\n  - role: gateway\n    nodes: host\n": "a gateway and a router are needed",
            "services:\n  - role: gateway\n    nodes: a\n  - role: router\n    nodes: a\n": "the first gateway belongs to node host",
            "services:\n  - role: gateway\n": "an entry of role gateway has no nodes",
            "services:\n  - role: gateway\n    nodes: far.away\n": 'node "far.away"',
        }
        for text, expected in faults.items():
            with self.subTest(text):
                cluster = Cluster(False, text)
                self.addCleanup(cluster.close)
                status, output = cluster.run("up")
                self.assertEqual(status, 1, output)
                self.assertIn(expected, output)


class ScriptsTest(unittest.TestCase):
    def test_shellcheck_finds_nothing(self):
        needs_tools("shellcheck")
        scripts = [path for folder in ("ops", "docker", ".ci") for path in (SOURCE / folder).rglob("*.sh")]
        self.assertIn(SCRIPT, scripts)
        done = subprocess.run(["shellcheck", "-x", *scripts, SOURCE / ".ci" / "run"], cwd=SOURCE, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
