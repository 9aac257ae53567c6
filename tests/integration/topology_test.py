#!/usr/bin/env python3
"""Every topology gives a client the same answers as one process. Usage: topology_test.py BIN_DIR SOURCE_DIR [unittest arguments]"""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from all_in_one import answers_of_one_process  # noqa: E402
from cluster import Cluster, at_once, text_of  # noqa: E402
from demo_questions import questions  # noqa: E402

BIN, SOURCE = sys.argv[1:3]

TOPOLOGIES = {
    "one shard, central, shm": dict(groups=("0-15",), carrier="shm"),
    "two shards, central, ipc": dict(groups=("0-7", "8-15"), carrier="ipc"),
    "two shards, central, tcp with CURVE": dict(groups=("0-7", "8-15"), carrier="tcp"),
    "four shards, direct, shm": dict(groups=("0-3", "4-7", "8-11", "12-15"), carrier="shm", dispatch="direct"),
    "four shards, direct, tcp with CURVE": dict(groups=("0-3", "4-7", "8-11", "12-15"), carrier="tcp", dispatch="direct"),
    "uneven shards, direct, ipc": dict(groups=("0,3,9", "1-2,4-8", "10-15"), carrier="ipc", dispatch="direct"),
    "two replicas, two decoders, two encoders, shm": dict(groups=("0-7", "8-15"), replicas=2, decoders=2, encoders=2, carrier="shm"),
}


class TopologyTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.questions = questions(SOURCE, 16)
        cls.expected = answers_of_one_process(BIN, cls.questions)

    def test_answers_equal_those_of_one_process(self):
        for name, topology in TOPOLOGIES.items():
            with self.subTest(name), Cluster(BIN, **topology) as cluster:
                answers = at_once([lambda q=q: cluster.chat(q) for q in self.questions], workers=8)
                self.assertEqual({status for status, _ in answers}, {200}, answers)
                self.assertEqual([text_of(answer) for _, answer in answers], self.expected)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
