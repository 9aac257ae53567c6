#!/usr/bin/env python3
"""Mixed load on a whole cluster with a random kill or freeze every few seconds. Usage: soak.py BIN_DIR SOURCE_DIR [--minutes 20]

Passes if every finished request equals the undisturbed run's, every other ended with a documented error before its deadline plus a second,
and no process that lived through grew. Prints one line of JSON last."""

import argparse
import json
import pathlib
import random
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from all_in_one import answers_of_one_process  # noqa: E402
from cluster import Cluster, text_of  # noqa: E402
from demo_questions import questions  # noqa: E402

DOCUMENTED = {("expert_shard_unavailable", 503), ("server_overloaded", 503), ("queue_timeout", 504), ("loading", 503), ("draining", 503), ("unavailable", 503)}


def resident_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def slope_per_minute(samples):
    """Least squares over (seconds, KiB) of the second half: the first fills caches."""
    half = samples[len(samples) // 2:]
    if len(half) < 5:
        return 0.0
    mean_t = sum(t for t, _ in half) / len(half)
    mean_m = sum(m for _, m in half) / len(half)
    above = sum((t - mean_t) * (m - mean_m) for t, m in half)
    below = sum((t - mean_t) ** 2 for t, _ in half)
    return 60 * above / below if below else 0.0


class Soak:
    def __init__(self, cluster, asked, expected, seed):
        self.cluster = cluster
        self.asked = asked
        self.expected = expected
        self.random = random.Random(seed)
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.finished = self.errors = 0
        self.problems = []
        self.kills = {}
        self.memory = {}

    def client(self, number):
        chance = random.Random(number)
        while not self.stop.is_set():
            which = chance.randrange(len(self.asked))
            timeout = chance.choice((5, 20, 60))
            begun = time.monotonic()
            try:
                status, answer = self.cluster.chat({**self.asked[which], "timeout": timeout}, gateway="gateway-0", timeout=timeout + 30)
            except OSError as error:
                with self.lock:
                    self.problems.append(f"gateway-0, which nobody kills: {error}")
                continue
            took = time.monotonic() - begun
            with self.lock:
                if took > timeout + 1:
                    self.problems.append(f"ended {took - timeout:.1f} s after its deadline of {timeout} s: {status}")
                if status == 200:
                    self.finished += 1
                    if text_of(answer) != self.expected[which]:
                        self.problems.append(f"question {which}: {text_of(answer)}, expected {self.expected[which]}")
                else:
                    self.errors += 1
                    code = answer["error"]["code"]
                    if (code, status) not in DOCUMENTED:
                        self.problems.append(f"undocumented error: {status} {answer}")

    def disturb(self, every_s):
        victims = [name for name, role in self.cluster.roles.items() if name != "gateway-0"]
        while not self.stop.wait(every_s):
            name = self.random.choice(victims)
            if self.random.random() < 0.7:
                self.cluster.kill(name)
                time.sleep(self.random.uniform(0.1, 2))
                self.cluster.start(name)
                what = "kill"
            else:
                self.cluster.signal(name, signal.SIGSTOP)
                time.sleep(self.random.uniform(0.5, 3))
                self.cluster.signal(name, signal.SIGCONT)
                what = "freeze"
            self.kills[f"{what} {self.cluster.roles[name]}"] = self.kills.get(f"{what} {self.cluster.roles[name]}", 0) + 1

    def watch_memory(self):
        begun = time.monotonic()
        while not self.stop.wait(2):
            for name, process in self.cluster.processes.items():
                try:
                    self.memory.setdefault((name, process.pid), []).append((time.monotonic() - begun, resident_kib(process.pid)))
                except OSError:
                    continue


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin")
    parser.add_argument("source")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--every", type=float, default=10, help="seconds between two disturbances")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    asked = questions(options.source, 32)
    expected = answers_of_one_process(options.bin, asked)
    with Cluster(options.bin, groups=("0-7", "8-15"), replicas=2, decoders=2, encoders=2, gateways=2, carrier="shm") as cluster:
        soak = Soak(cluster, asked, expected, options.seed)
        threads = [threading.Thread(target=soak.client, args=(i,)) for i in range(options.clients)]
        threads += [threading.Thread(target=soak.disturb, args=(options.every,)), threading.Thread(target=soak.watch_memory)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + options.minutes * 60
        while time.monotonic() < end:
            time.sleep(min(60, max(0, end - time.monotonic())))
            print(f"soak: {soak.finished} finished, {soak.errors} ended with an error, {len(soak.problems)} problems", flush=True)
        soak.stop.set()
        for thread in threads:
            thread.join()
        causes = cluster.internal_errors()
    # Growth that matters: over a whole run more than a hundredth of a process, and more than noise.
    slopes = {f"{name}/{pid}": slope_per_minute(samples) for (name, pid), samples in soak.memory.items() if len(samples) >= 60}
    grew = {name: round(slope) for name, slope in slopes.items() if slope > 256}
    report = {"minutes": options.minutes, "finished": soak.finished, "errors": soak.errors, "disturbances": soak.kills, "problems": len(soak.problems),
              "largest_slope_kib_per_minute": round(max(slopes.values(), default=0)), "grew": grew}
    for problem in soak.problems[:20]:
        print("problem:", problem)
    for cause in causes[:20]:
        print("cause:", cause)
    print(json.dumps(report))
    if soak.finished == 0 or soak.problems or grew:
        sys.exit(1)


if __name__ == "__main__":
    main()
