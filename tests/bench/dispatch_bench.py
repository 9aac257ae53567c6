#!/usr/bin/env python3
"""What a token costs by topology and wire: one stream and eight, the time per token of one process and of clusters of two shards.
Usage: dispatch_bench.py BIN_DIR [--tokens 400] [--rounds 3]"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from all_in_one import ask  # noqa: E402
from cluster import Cluster, at_once, free_ports, stream_of  # noqa: E402

QUESTION = {"messages": [{"role": "user", "content": "Who are you?"}], "temperature": 0, "ignore_eos": True}


class OneProcess:
    def __init__(self, bin_dir):
        self.port = free_ports(1)[0]
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen([pathlib.Path(bin_dir) / "moesaic", "serve", "--http-port", str(self.port), "--engine-threads", "1",
                                         "--model-compute", "bf16"], stdout=self.log, stderr=self.log)
        ask(self.port, "GET", "/ready", wait_s=60)

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def ms_per_token(port, tokens):
    """Without the first eight, which wait for the prompt."""
    times = [at for at, event in stream_of(port, {**QUESTION, "max_completion_tokens": tokens}) if "choices" in event][8:]
    return 1000 * (times[-1] - times[0]) / (len(times) - 1)


def mean_ms(port, tokens, streams):
    return statistics.mean(at_once([lambda: ms_per_token(port, tokens)] * streams, streams))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin")
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    one = OneProcess(options.bin)
    ports = {"one process": one.port}
    clusters = []
    try:
        for carrier in ("shm", "ipc", "tcp"):
            for dispatch in ("direct", "central"):
                cluster = Cluster(options.bin, groups=("0-7", "8-15"), dispatch=dispatch, carrier=carrier)
                clusters.append(cluster)
                cluster.__enter__()
                ports[f"{carrier}{' + CURVE' if carrier == 'tcp' else ''}, {dispatch}"] = cluster.ports["gateway-0"]
        results = {name: {1: [], 8: []} for name in ports}
        for _ in range(options.rounds):  # in turns: what disturbs the machine disturbs all
            for name, port in ports.items():
                for streams in (1, 8):
                    results[name][streams].append(mean_ms(port, options.tokens, streams))
                time.sleep(0.2)
    finally:
        one.stop()
        for cluster in clusters:
            cluster.stop()
    base = {streams: statistics.median(results["one process"][streams]) for streams in (1, 8)}
    print(f"{'':24}{'1 stream':>22}{'8 streams':>22}   ms per token of a stream, median of the rounds; beside it what the cluster adds")
    for name, by_streams in results.items():
        row = f"{name:24}"
        for streams in (1, 8):
            value = statistics.median(by_streams[streams])
            row += f"{value:12.2f} ({value - base[streams]:+7.2f})"
        print(row)


if __name__ == "__main__":
    main()
