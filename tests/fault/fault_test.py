#!/usr/bin/env python3
"""Processes of a cluster are killed, frozen and started again under load; clients get the tokens of the undisturbed run.
Usage: fault_test.py BIN_DIR SOURCE_DIR [unittest arguments]"""

import json
import pathlib
import signal
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from all_in_one import answers_of_one_process  # noqa: E402
from cluster import Cluster, at_once, placement, text_of  # noqa: E402
from demo_questions import questions  # noqa: E402

BIN, SOURCE = sys.argv[1:3]
TWO_GROUPS = dict(groups=("0-7", "8-15"), dispatch="central", carrier="shm")


def streamed(events):
    """(text, finish reason, longest pause after the first token) of a stream; an error instead of the reason if it ended with one."""
    text, reason, times = "", None, []
    for at, event in events:
        if "error" in event:
            return text, event["error"], 0
        for choice in event["choices"]:
            delta = choice.get("delta", {})
            piece = (delta.get("reasoning_content") or "") + (delta.get("content") or "")
            if piece:
                times.append(at)
            text += piece
            reason = choice["finish_reason"] or reason
    return text, reason, max((b - a for a, b in zip(times, times[1:])), default=0)


class FaultTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.questions = questions(SOURCE, 16)
        cls.expected = answers_of_one_process(BIN, cls.questions)

    def ask_while(self, cluster, disturb, seconds=4, workers=16):
        """Asks again and again while `disturb()` runs, and for `seconds` at least; every answer must be the undisturbed one."""
        disturber = threading.Thread(target=disturb)
        end = time.monotonic() + seconds
        wrong, done = [], [0] * workers

        def client(number):
            which = number
            while time.monotonic() < end or disturber.is_alive():
                which = (which + 1) % len(self.questions)
                status, answer = cluster.chat({**self.questions[which], "timeout": 60})
                if status != 200 or text_of(answer) != self.expected[which]:
                    wrong.append((which, status, answer))
                done[number] += 1

        disturber.start()
        at_once([lambda n=n: client(n) for n in range(workers)], workers)
        disturber.join()
        self.assertEqual(wrong, [], f"{len(wrong)} of {sum(done)} wrong; {cluster.internal_errors()}")
        self.assertGreater(min(done), 0)

    def test_killed_shard_is_replaced_by_its_replica_within_a_step(self):
        with Cluster(BIN, **TWO_GROUPS, replicas=2) as cluster:
            long = {**self.questions[3], "max_completion_tokens": 400, "temperature": 0, "ignore_eos": True}
            calm, reason, calm_pause = streamed(cluster.stream(long))
            self.assertEqual(reason, "length")
            result = {}
            stream = threading.Thread(target=lambda: result.update(answer=streamed(cluster.stream(long))))
            stream.start()
            time.sleep(0.4)
            cluster.kill("shard-0")
            stream.join()
            text, reason, pause = result["answer"]
            self.assertEqual((text, reason), (calm, "length"))
            self.assertLess(pause, 0.3, f"the stream paused {pause:.3f} s (undisturbed {calm_pause:.3f} s)")

    def test_two_hundred_running_requests_survive_the_kill_of_a_shard(self):
        long = [{**question, "ignore_eos": True, "max_completion_tokens": 200} for question in self.questions]
        expected = answers_of_one_process(BIN, long)
        with Cluster(BIN, **TWO_GROUPS, replicas=2, settings={"engine.max_running": "256"}) as cluster:
            killer = threading.Timer(0.8, lambda: cluster.kill("shard-1"))
            killer.start()
            begun = time.monotonic()
            answers = at_once([lambda q=q: cluster.chat(q) for q in long * 13], workers=208)
            self.assertGreater(time.monotonic() - begun, 1.5, "they ended before the kill")
            killer.join()
            self.assertEqual([answer for status, answer in answers if status != 200], [])
            self.assertEqual([text_of(answer) for _, answer in answers], expected * 13)

    def test_frozen_shard_is_passed_over_within_a_second(self):
        with Cluster(BIN, **TWO_GROUPS, replicas=2) as cluster:
            long = {**self.questions[3], "max_completion_tokens": 400, "temperature": 0, "ignore_eos": True}
            calm, _, _ = streamed(cluster.stream(long))
            result = {}
            stream = threading.Thread(target=lambda: result.update(answer=streamed(cluster.stream(long))))
            stream.start()
            time.sleep(0.4)
            cluster.signal("shard-0", signal.SIGSTOP)
            stream.join()
            cluster.signal("shard-0", signal.SIGCONT)
            text, reason, pause = result["answer"]
            self.assertEqual((text, reason), (calm, "length"))
            self.assertLess(pause, 1.3, f"the stream paused {pause:.3f} s")

    def test_shard_without_replica_is_waited_for(self):
        with Cluster(BIN, **TWO_GROUPS) as cluster:
            def disturb():
                time.sleep(0.5)
                cluster.kill("shard-0")
                time.sleep(1)
                cluster.start("shard-0")
            self.ask_while(cluster, disturb)

    def test_shard_that_does_not_return_ends_requests_at_their_deadline(self):
        with Cluster(BIN, **TWO_GROUPS) as cluster:
            cluster.kill("shard-1")
            begun = time.monotonic()
            status, answer = cluster.chat({**self.questions[0], "timeout": 2})
            took = time.monotonic() - begun
            self.assertEqual((status, answer["error"]["code"]), (503, "expert_shard_unavailable"), answer)
            self.assertLess(took, 3)
            deadline = time.monotonic() + 5
            while cluster.request("GET", "/ready")[0] == 200:
                self.assertLess(time.monotonic(), deadline, "/ready is true without shard-1")
                time.sleep(0.05)

    def test_requests_of_a_killed_decoder_go_on_at_another(self):
        with Cluster(BIN, **TWO_GROUPS, decoders=2) as cluster:
            def disturb():
                for number in range(4):
                    time.sleep(0.8)
                    cluster.restart(f"decoder-{number % 2}")
                    time.sleep(0.8)
            self.ask_while(cluster, disturb)

    def test_requests_of_a_frozen_decoder_go_on_at_another(self):
        with Cluster(BIN, **TWO_GROUPS, decoders=2) as cluster:
            def disturb():
                time.sleep(0.7)
                cluster.signal("decoder-1", signal.SIGSTOP)
            self.ask_while(cluster, disturb)

    def test_images_of_a_killed_encoder_are_encoded_again(self):
        with Cluster(BIN, **TWO_GROUPS, encoders=2, settings={"vision.cache_bytes": "0"}) as cluster:
            def disturb():
                for number in range(6):
                    time.sleep(0.6)
                    cluster.restart(f"vision-encoder-{number % 2}")
            self.ask_while(cluster, disturb)

    def test_serving_goes_on_without_a_router(self):
        for dispatch in ("central", "direct"):
            with self.subTest(dispatch), Cluster(BIN, **{**TWO_GROUPS, "dispatch": dispatch}) as cluster:
                def disturb():
                    time.sleep(0.5)
                    cluster.kill("router-0")
                self.ask_while(cluster, disturb)
                status, _ = cluster.request("GET", "/ready")
                self.assertEqual(status, 200)

    def test_router_that_returns_takes_over_again(self):
        with Cluster(BIN, **TWO_GROUPS) as cluster:
            def disturb():
                for _ in range(3):
                    time.sleep(1)
                    cluster.restart("router-0")
                    time.sleep(1)
            self.ask_while(cluster, disturb)

    def test_restart_of_a_gateway_ends_its_own_streams_only(self):
        with Cluster(BIN, **TWO_GROUPS, gateways=2) as cluster:
            cluster.wait_ready(gateway="gateway-1")
            def disturb():
                for _ in range(4):
                    time.sleep(1)
                    cluster.restart("gateway-1")
            self.ask_while(cluster, disturb)

    def test_placement_changes_under_load(self):
        with Cluster(BIN, **TWO_GROUPS) as cluster:
            ways = [placement(groups) for groups in (("0-3,12-15", "4-11"), ("0-7", "8-15"), ("8-15", "0-7"), ("0-14", "15"))]
            changes = []

            def disturb():
                number = 0
                while len(changes) < 20:
                    number += 1
                    yaml = ways[number % len(ways)].replace("epoch: 1", f"epoch: {number + 1}")
                    file = cluster.folder / f"placement-{number}.yaml"
                    file.write_text(yaml)
                    changes.append(cluster.place(file))
            self.ask_while(cluster, disturb)
            self.assertEqual(len(changes), 20)
            self.assertEqual([output for status, output in changes if status != 0], [])


class ReadinessTest(unittest.TestCase):
    def test_every_service_says_how_it_is(self):
        with Cluster(BIN, **TWO_GROUPS) as cluster:
            for name, role in cluster.roles.items():
                with self.subTest(name):
                    ready = json.loads(cluster.admin_get(name, "/ready"))
                    self.assertTrue(ready["ready"], ready)
                    self.assertIn("moesaic_", cluster.admin_get(name, "/metrics"))
                    self.assertIn(role, cluster.admin_get(name, "/ready"))

    def test_sigterm_ends_every_service_with_status_0(self):
        for attempt in range(5):
            with self.subTest(attempt), Cluster(BIN, **TWO_GROUPS) as cluster:
                for process in cluster.processes.values():
                    process.terminate()
                statuses = {name: process.wait(20) for name, process in cluster.processes.items()}
                self.assertEqual(statuses, {name: 0 for name in statuses})


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
