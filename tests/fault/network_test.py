#!/usr/bin/env python3
"""A cluster in network namespaces, tcp with CURVE between its nodes: a link goes down, packets are lost, a connection is half-open; clients get the
tokens of the undisturbed run. Needs root. Usage: network_test.py BIN_DIR SOURCE_DIR [unittest arguments]"""

import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from all_in_one import answers_of_one_process  # noqa: E402
from cluster import at_once, text_of  # noqa: E402
from demo_questions import questions  # noqa: E402

BIN, SOURCE = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])


class NetworkTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("nft"):
            if os.environ.get("CI"):
                raise RuntimeError("these tests need root, ip and nft")
            raise unittest.SkipTest("namespaces need root, ip and nft")
        cls.questions = questions(SOURCE, 16)
        cls.expected = answers_of_one_process(BIN, cls.questions)
        cls.state = tempfile.mkdtemp(prefix="moesaic-network-")
        cls.environment = {**os.environ, "STATE": cls.state, "BIN": str(BIN), "PORT_SHIFT": str(random.randrange(1, 400) * 50)}
        cls.addClassCleanup(shutil.rmtree, cls.state)
        cls.addClassCleanup(cls.script, "down")
        output = cls.script("up")
        cls.url = re.search(r"http://127\.0\.0\.1:\d+(?=/v1)", output).group()
        # Namespaces carry the state folder's number: PREFIX-NODE.
        number = int(subprocess.run(["cksum"], input=f"{os.path.realpath(cls.state)}\n", capture_output=True, text=True, check=True).stdout.split()[0]) % 254 + 1
        cls.prefix = f"moe{number}"

    @classmethod
    def script(cls, *arguments):
        # The services outlive the script, so they must not hold a pipe of ours.
        with tempfile.TemporaryFile("w+") as output:
            status = subprocess.run([SOURCE / "ops" / "cluster.sh", *arguments], env=cls.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                    timeout=180).returncode
            output.seek(0)
            text = output.read()
        assert status == 0, text
        return text

    def chat(self, document):
        request = urllib.request.Request(self.url + "/v1/chat/completions", json.dumps({**document, "timeout": 60}).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=90) as answer:
            return json.load(answer)

    def ask_while(self, disturb):
        wrong, done = [], [0] * 12

        def disturbing():
            try:
                disturb()
            except Exception as error:
                wrong.append(("disturbance", error))

        disturber = threading.Thread(target=disturbing)

        def client(number):
            which = number
            while disturber.is_alive():
                which = (which + 1) % len(self.questions)
                try:
                    answer = text_of(self.chat(self.questions[which]))
                except urllib.error.HTTPError as error:
                    answer = error.code, error.read()
                if answer != self.expected[which]:
                    wrong.append((which, answer))
                done[number] += 1

        disturber.start()
        at_once([lambda n=n: client(n) for n in range(len(done))], len(done))
        disturber.join()
        if wrong:
            for log in sorted(pathlib.Path(self.state, "log").glob("*.log")):
                text = log.read_text(errors="replace")
                causes = [line for line in text.splitlines() if "internal: " in line or "dropped unanswered" in line]
                print(f"--- {log.name}", *causes, text[-1500:], sep="\n", file=sys.stderr)
        self.assertEqual(wrong, [], f"{len(wrong)} of {sum(done)} wrong")
        self.assertGreater(min(done), 0)

    def rules(self, node, text):
        subprocess.run(["ip", "netns", "exec", f"{self.prefix}-{node}", "nft", "-f", "-"], input=text, text=True, check=True)

    def lose(self, node, what, seconds):
        """Packets that come to the node are dropped: `what` says which."""
        self.rules(node, f"table inet faults {{\n chain incoming {{\n type filter hook input priority 0;\n {what} drop\n }}\n}}\n")
        time.sleep(seconds)
        self.rules(node, "delete table inet faults\n")

    def test_link_of_a_node_of_shards_goes_down(self):
        def disturb():
            for _ in range(2):
                time.sleep(0.5)
                self.script("cut", "b")
                time.sleep(2)
                self.script("mend", "b")
                time.sleep(1)
        self.ask_while(disturb)

    def test_link_of_a_decoder_goes_down(self):
        def disturb():
            time.sleep(0.5)
            self.script("cut", "d")
            time.sleep(2)
            self.script("mend", "d")
            time.sleep(1)
        self.ask_while(disturb)

    def test_two_of_a_hundred_packets_are_lost(self):
        def disturb():
            with_shards = threading.Thread(target=lambda: self.lose("b", "numgen random mod 100 < 2", 5))
            with_shards.start()
            self.lose("d", "numgen random mod 100 < 2", 5)
            with_shards.join()
        self.ask_while(disturb)

    def test_half_open_connections_are_noticed(self):
        def disturb():
            time.sleep(0.5)
            self.lose("b", "meta l4proto tcp", 2)
            time.sleep(1)
        self.ask_while(disturb)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
