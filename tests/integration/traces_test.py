#!/usr/bin/env python3
"""Every program sends its spans to the configured collector, and those of a request make one tree. Usage: traces_test.py BIN_DIR [unittest arguments]"""

import base64
import collections
import http.server
import json
import pathlib
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from all_in_one import Server  # noqa: E402
from cluster import Cluster  # noqa: E402

BIN = pathlib.Path(sys.argv[1])
SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
PICTURE = base64.b64encode((SOURCE / "configs/models/ernie-vl-demo/examples/digit.png").read_bytes()).decode()
QUESTION = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + PICTURE}},
                                                      {"type": "text", "text": "Which digit is this?"}]}], "temperature": 0}


class Collector:
    """Takes OTLP/HTTP JSON; use it in a with statement."""

    def __init__(self):
        self.spans = []  # (service, span)
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for resource in body["resourceSpans"]:
                    named = {item["key"]: item["value"]["stringValue"] for item in resource["resource"]["attributes"] if "stringValue" in item["value"]}
                    for scope in resource["scopeSpans"]:
                        collector.spans += [(named["service.name"], span) for span in scope["spans"]]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def wait_for(self, services):
        deadline = time.monotonic() + 20
        while {service for service, _ in self.spans} < services and time.monotonic() < deadline:
            time.sleep(0.05)


class TracesTest(unittest.TestCase):
    def check_tree(self, collector):
        """All spans belong to one trace, whose root is the gateway's, and have their parents."""
        self.assertEqual(len({span["traceId"] for _, span in collector.spans}), 1)
        known = {span["spanId"] for _, span in collector.spans}
        roots = [span["name"] for _, span in collector.spans if not span.get("parentSpanId")]
        self.assertEqual(roots, ["request"])
        orphans = collections.Counter(f"{service}: {span['name']}" for service, span in collector.spans
                                      if span.get("parentSpanId") and span["parentSpanId"] not in known)
        self.assertEqual(orphans, {})

    def test_the_spans_of_a_cluster_make_one_tree(self):
        services = {"moesaic-gateway", "moesaic-vision-encoder", "moesaic-decoder", "moesaic-router", "moesaic-expert-shard"}
        with Collector() as collector:
            with Cluster(BIN, groups=("0-7", "8-15"), settings={"trace.endpoint": collector.endpoint}) as cluster:
                self.assertEqual(cluster.chat(QUESTION)[0], 200)
                collector.wait_for(services)
            self.assertEqual({service for service, _ in collector.spans}, services)
            self.check_tree(collector)

    def test_one_process_sends_them_too(self):
        with Collector() as collector:
            server = Server(BIN / "moesaic", "--trace-endpoint", collector.endpoint)
            self.assertEqual(server.chat(QUESTION)[0], 200)
            self.assertEqual(server.stop(), 0)
            self.assertEqual({service for service, _ in collector.spans}, {"moesaic"})
            self.check_tree(collector)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
