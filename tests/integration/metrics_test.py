#!/usr/bin/env python3
"""What `moesaic serve` tells on /metrics, after requests whose numbers are known. Usage: metrics_test.py BINARY SOURCE_DIR"""

import base64
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from all_in_one import Server  # noqa: E402

BINARY = pathlib.Path(sys.argv[1])
SOURCE = pathlib.Path(sys.argv[2])
DEMO = SOURCE / "configs" / "models" / "ernie-vl-demo"


class MeasuredServer(Server):
    def metrics(self):
        status, text = self.request("GET", "/metrics")
        assert status == 200, text
        return text.decode()

    def value(self, series):
        found = re.search(rf"^{re.escape(series)} (\S+)$", self.metrics(), re.MULTILINE)
        return float(found[1]) if found else None


class MetricsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = MeasuredServer(BINARY, "--metrics-compat", "vllm")

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def growth(self, work, *series):
        """What each series grows by while `work` runs."""
        before = [self.server.value(name) or 0 for name in series]
        work()
        return [(self.server.value(name) or 0) - old for name, old in zip(series, before)]

    def generate(self, tokens):
        status, body = self.server.request("POST", "/v1/completions", {
            "prompt": "one two three", "max_tokens": tokens, "ignore_eos": True, "temperature": 0})
        self.assertEqual(status, 200, body)
        self.usage = json.loads(body)["usage"]

    def test_a_request_counts_at_every_stage(self):
        grown = self.growth(
            lambda: self.generate(5),
            "moesaic_request_ttft_seconds_count", "moesaic_request_inter_token_seconds_count", "moesaic_request_e2e_seconds_count",
            "moesaic_request_queue_seconds_count", "moesaic_request_prefill_seconds_count", "moesaic_request_decode_seconds_count",
            "moesaic_request_generated_tokens_total", 'moesaic_request_finished_total{reason="length"}',
            'moesaic_http_requests_total{method="POST",route="/v1/completions",status="200"}')
        self.assertEqual(grown, [1, 4, 1, 1, 1, 1, 5, 1, 1])
        [prompt] = self.growth(lambda: self.generate(1), "moesaic_request_prompt_tokens_total")
        self.assertEqual(prompt, self.usage["prompt_tokens"])

    def test_a_refusal_counts_by_its_code(self):
        def bad():
            self.assertEqual(self.server.request("POST", "/v1/completions", {"prompt": "a", "max_tokens": -1})[0], 400)
        status, body = self.server.request("POST", "/v1/completions", {"prompt": "a", "max_tokens": -1})
        code = json.loads(body)["error"]["code"]
        grown = self.growth(bad, f'moesaic_request_rejected_total{{reason="{code}"}}', "moesaic_request_generated_tokens_total")
        self.assertEqual(grown, [1, 0])

    def test_a_client_that_leaves_is_counted_and_its_place_released(self):
        def leave():
            connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
            connection.request("POST", "/v1/completions", json.dumps(
                {"prompt": "one", "max_tokens": 1500, "ignore_eos": True, "stream": True}), {"Content-Type": "application/json"})
            connection.getresponse().read(1)
            connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                if self.server.value("moesaic_request_open") == 0 and self.server.value("moesaic_engine_requests_running") == 0:
                    return
                time.sleep(0.02)
            self.fail("the request goes on without its client")
        grown = self.growth(leave, 'moesaic_request_cancelled_total{stage="decode"}', "moesaic_request_cancel_release_seconds_count")
        self.assertEqual(grown, [1, 1])

    def test_an_image_is_encoded_once_and_known_afterwards(self):
        url = "data:image/png;base64," + base64.b64encode((DEMO / "examples" / "digit.png").read_bytes()).decode()

        def ask():
            status, body = self.server.request("POST", "/v1/chat/completions", {
                "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}]}],
                "max_completion_tokens": 1})
            self.assertEqual(status, 200, body)
        series = ("moesaic_vision_cache_misses_total", "moesaic_vision_cache_hits_total", "moesaic_vision_encode_seconds_count",
                  "moesaic_vision_queue_seconds_count")
        self.assertEqual(self.growth(ask, *series), [1, 0, 1, 1])
        self.assertEqual(self.growth(ask, *series), [0, 1, 0, 1])

    def test_the_process_and_its_readiness_are_told(self):
        self.assertEqual(self.server.value("moesaic_control_ready"), 1)
        self.assertGreater(self.server.value("moesaic_process_resident_memory_bytes"), 1e6)
        self.assertLess(abs(self.server.value("moesaic_process_start_time_seconds") - time.time()), 600)
        self.assertEqual(self.server.value("moesaic_kv_usage_ratio"), 0)

    def test_dashboards_for_vllm_find_their_series(self):
        self.generate(2)
        text = self.server.metrics()
        for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prompt_tokens_total", "generation_tokens_total",
                     "time_to_first_token_seconds_count", "inter_token_latency_seconds_count", "e2e_request_latency_seconds_count"):
            self.assertIn(f'\nvllm:{name}{{model_name="ernie-vl-demo",engine="0"}} ', text)

    def test_promtool_has_nothing_to_say_about_the_live_page(self):
        if shutil.which("promtool") is None:
            self.assertNotEqual(os.environ.get("CI"), "true", "promtool is needed, and CI has it: see ops/packages.txt")
            self.skipTest("promtool is needed")
        self.generate(2)
        # Names of others are not ours to judge.
        own = "".join(line + "\n" for line in self.server.metrics().splitlines() if "vllm:" not in line)
        checked = subprocess.run(["promtool", "check", "metrics"], input=own, capture_output=True, text=True, check=False)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
