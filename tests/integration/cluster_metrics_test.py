#!/usr/bin/env python3
"""Every metric of ops/metrics.md is produced by a cluster that answers about an image and loses a shard. Usage: cluster_metrics_test.py BIN_DIR SOURCE_DIR"""

import base64
import json
import pathlib
import re
import signal
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from cluster import Cluster  # noqa: E402

BIN = pathlib.Path(sys.argv[1])
SOURCE = pathlib.Path(sys.argv[2])
PICTURE = base64.b64encode((SOURCE / "configs/models/ernie-vl-demo/examples/digit.png").read_bytes()).decode()
QUESTION = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + PICTURE}},
                                                      {"type": "text", "text": "Which digit is this?"}]}], "temperature": 0}
STORY = {"messages": [{"role": "user", "content": "Tell me a story."}], "temperature": 0, "max_completion_tokens": 100}
# What only happens in other cases; each has a test of its own where it happens.
RARE = {
    "moesaic_engine_energy_joules_total",         # where the processor tells
    "moesaic_request_cancelled_total",            # metrics_test.py
    "moesaic_request_cancel_release_seconds",
    "moesaic_request_rejected_total",
    "moesaic_trace_dropped_spans_total",          # exporter_test
    "moesaic_wire_hwm_drops_total",               # transport_test
    "moesaic_wire_malformed_total",
    "moesaic_wire_handshake_failures_total",
    "moesaic_wire_send_blocked_seconds_total",
}


def value(page, series):
    return sum(float(number) for number in re.findall(rf"^{series}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE))


class ClusterMetricsTest(unittest.TestCase):
    def test_every_metric_is_produced(self):
        listed = set(re.findall(r"^\| `(moesaic_\w+)` \| (?:counter|gauge|histogram) ", (SOURCE / "ops/metrics.md").read_text(), re.MULTILINE))
        self.assertGreater(len(listed), 50)
        with Cluster(BIN, groups=("0-7", "8-15"), settings={"shard.expert_metrics": "yes"}) as cluster:
            self.assertEqual(cluster.chat(QUESTION)[0], 200)
            for _ in range(200):
                self.assertEqual(cluster.chat(STORY)[0], 200)
                if "moesaic_moe_shard_imbalance_ratio{" in cluster.admin_get("router-0", "/metrics"):
                    break  # it is measured over a window of steps
            pages = {name: cluster.admin_get(name, "/metrics") for name in cluster.admin}
            self.assertEqual(value(pages["gateway-0"], "moesaic_vision_fetch_seconds_count"), 1)
            [encoder] = [name for name in pages if name.startswith("vision")]
            self.assertEqual(value(pages[encoder], "moesaic_vision_transfer_seconds_count"), 1)
            for shard in (name for name in pages if name.startswith("shard")):
                matrix = json.loads(cluster.admin_get(shard, "/experts"))["rows"]
                rows = {modality: sum(map(sum, matrix[modality])) for modality in ("text", "vision")}
                self.assertGreater(min(rows.values()), 0)
                self.assertEqual(value(pages[shard], "moesaic_moe_expert_tokens_total"), sum(rows.values()))

            shard = next(name for name in pages if name.startswith("shard"))
            cluster.signal(shard, signal.SIGSTOP)
            try:
                self.assertIn(cluster.chat({**QUESTION, "timeout": 2})[0], (408, 503, 504))
            finally:
                cluster.signal(shard, signal.SIGCONT)
            time.sleep(0.2)
            produced = set()
            for name in cluster.admin:
                produced |= set(re.findall(r"^# TYPE (moesaic_\w+) ", cluster.admin_get(name, "/metrics"), re.MULTILINE))
            self.assertEqual(listed - produced - RARE, set())
            self.assertEqual({name for name in produced if name.startswith("moesaic_")} - listed, set())


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
