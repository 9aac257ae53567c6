#!/usr/bin/env python3
"""`ops/cluster.sh up` as a user runs it: the real programs, the default profile, the demo model; a shard and the router are killed by hand.
Usage: cluster_test.py SOURCE_DIR PROGRAM_DIR [unittest arguments]"""

import concurrent.futures
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

from needs import needs_root, needs_tools

SOURCE, PROGRAMS = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
CASES = json.loads((SOURCE / "configs/models/ernie-vl-demo/cases.json").read_text())["cases"]
# Text alone, without thinking: greedy_text is the whole answer.
CASE = next(case for case in CASES if not case["thinking"] and all(isinstance(m["content"], str) for m in case["messages"]))


class LoopbackTest(unittest.TestCase):
    netns = "no"

    def setUp(self):
        needs_tools("curl")
        self.state = tempfile.mkdtemp(prefix="moesaic-cluster-")
        self.environment = {**os.environ, "STATE": self.state, "BIN": str(PROGRAMS), "NETNS": self.netns, "MOESAIC_MODEL_COMPUTE": "f32",
                            "PORT_SHIFT": str(random.randrange(1, 400) * 50)}
        self.addCleanup(shutil.rmtree, self.state)
        self.addCleanup(self.run_script, "down")

    def run_script(self, *arguments):
        # The services outlive the script, so they must not hold a pipe of ours.
        with tempfile.TemporaryFile("w+") as output:
            status = subprocess.run([SOURCE / "ops" / "cluster.sh", *arguments], env=self.environment, stdin=subprocess.DEVNULL,
                                    stdout=output, stderr=output, timeout=180).returncode
            output.seek(0)
            return status, output.read()

    def ask(self):
        document = {"messages": CASE["messages"], "temperature": 0, "max_completion_tokens": 160, "chat_template_kwargs": {"enable_thinking": False}}
        request = urllib.request.Request(self.url + "/v1/chat/completions", json.dumps(document).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["choices"][0]["message"]["content"]

    def test_it_serves_and_goes_on_when_a_shard_is_killed_and_when_experts_move(self):
        status, output = self.run_script("up")
        self.assertEqual(status, 0, output)
        self.url = re.search(r"http://127\.0\.0\.1:\d+(?=/v1)", output).group()
        for shard in ("shard-0", "shard-1", "shard-2", "shard-3"):
            self.assertIn(shard, output.partition("placement\n")[2].partition("\nTry:")[0])
        self.assertEqual(self.ask(), CASE["greedy_text"])
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(self.ask) for _ in range(24)]
            time.sleep(0.1)
            self.assertEqual(self.run_script("kill", "shard-0")[0], 0)
            self.assertEqual({answer.result() for answer in answers}, {CASE["greedy_text"]})
        deadline = time.monotonic() + 30
        while (found := self.run_script("status"))[0] != 0 or found[1].count(" ready ") != 9:
            self.assertLess(time.monotonic(), deadline, found[1])
            time.sleep(0.2)
        self.assertRegex(found[1], r"shard-0 +\d+ +ready +1 ")
        # The experts change places, and so do not the tokens.
        placement = (SOURCE / "configs/profiles/cluster_placement.yaml").read_text()
        swapped = placement.replace("epoch: 1", "epoch: 2").replace("low", "x").replace("high", "low").replace("group: x", "group: high")
        (pathlib.Path(self.state) / "swapped.yaml").write_text(swapped)
        status, output = self.run_script("place", f"{self.state}/swapped.yaml")
        self.assertEqual(status, 0, output)
        while not re.search(r"shard-0 +ready.*text 8-15", (seen := self.run_script("top", "--once")[1])):
            self.assertLess(time.monotonic(), deadline, seen)
        self.assertEqual(self.ask(), CASE["greedy_text"])
        # What was placed by hand outlives the router, which then numbers on.
        self.assertEqual(self.run_script("kill", "router-0")[0], 0)
        deadline = time.monotonic() + 30
        while not re.search(r"^leader router-0, .*placement [3-9], ready", (seen := self.run_script("top", "--once")[1]), re.MULTILINE):
            self.assertLess(time.monotonic(), deadline, seen)
            time.sleep(0.2)
        self.assertRegex(seen, r"shard-0 +ready.*text 8-15")
        self.assertEqual(self.ask(), CASE["greedy_text"])
        self.assertEqual(self.run_script("down")[0], 0)


class NamespaceTest(LoopbackTest):
    netns = "yes"

    def setUp(self):
        needs_root()
        needs_tools("ip")
        super().setUp()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
