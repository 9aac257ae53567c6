#!/usr/bin/env python3
"""What cutting a model into processes costs: decode of one stream by a decoder and two expert shards over shared memory, against one process with the same
files. The processes share the pages of a pack; both sides are up all the time and take turns. Usage:
  processes_bench.py BIN_DIR MODEL_DIR [--tokens 64] [--rounds 5] [--threads 0] [--shard-threads 0] [--carrier shm] [--dispatch direct]"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from all_in_one import Server  # noqa: E402
from cluster import Cluster, stream_of  # noqa: E402

QUESTION = {"messages": [{"role": "user", "content": "Who are you?"}], "temperature": 0, "ignore_eos": True}
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids):
    seconds = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / TICKS
    return seconds


def wait_until_idle(pids, patience_s):
    """Pages of a pack are touched in the background after the start."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        before = cpu_seconds(pids)
        time.sleep(2)
        if cpu_seconds(pids) - before < 0.1:
            return
    print("note: the processes were still busy with loading when the measurement began")


def memory_gb(pids):
    """Anonymous memory of all, and what of the mapped files is resident in any: their largest."""
    anonymous = files = 0
    for pid in pids:
        status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
        anonymous += int(status["RssAnon"].split()[0])
        files = max(files, int(status["RssFile"].split()[0]))
    return anonymous * 1024e-9, files * 1024e-9


def decode(port, tokens):
    """Tokens a second after the first token, and the text."""
    events = [(at, event["choices"][0]) for at, event in stream_of(port, {**QUESTION, "max_completion_tokens": tokens}, timeout=600) if event.get("choices")]
    text = "".join(choice["delta"].get("content") or "" for _, choice in events)
    times = [at for at, choice in events if choice["delta"].get("content")]
    return (tokens - 1) / (times[-1] - times[0]), text


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin")
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="0", help="of one process, and of the decoder; 0: one per CPU")
    parser.add_argument("--shard-threads", default="0", help="of each shard; 0: one per CPU")
    parser.add_argument("--carrier", default="shm")
    parser.add_argument("--dispatch", default="direct")
    parser.add_argument("--patience", type=int, default=600, help="seconds to load")
    options = parser.parse_args()
    experts = json.loads((pathlib.Path(options.model) / "config.json").read_text())["moe_num_experts"][0]
    settings = {"model.compute": "auto", "engine.threads": options.threads, "engine.max_context": "4096", "engine.max_running": "1", "kv.bytes": str(512 << 20)}
    flags = [word for key, value in settings.items() for word in ("--" + key.replace(".", "-").replace("_", "-"), value)]
    cluster = Cluster(options.bin, groups=(f"0-{experts // 2 - 1}", f"{experts // 2}-{experts - 1}"), dispatch=options.dispatch, carrier=options.carrier,
                      settings=settings, model=options.model, encoders=0)
    for name, (role, keys) in cluster.commands.items():
        if role == "expert-shard":
            keys["engine.threads"] = options.shard_threads
    one = Server(pathlib.Path(options.bin) / "moesaic", "--model", options.model, *flags)
    try:
        for name in cluster.roles:
            cluster.start(name)
        cluster.wait_ready(options.patience)
        sides = {"one process": (one.port, [one.process.pid]),
                 f"decoder and two shards, {options.carrier}, {options.dispatch}": (cluster.ports["gateway-0"], [p.pid for p in cluster.processes.values()])}
        for _, pids in sides.values():
            wait_until_idle(pids, options.patience)
        texts, rates, spent = {}, {name: [] for name in sides}, {name: [] for name in sides}
        for number in range(options.rounds + 1):  # in turns: what disturbs the machine disturbs both
            for name, (port, pids) in sides.items():
                before = cpu_seconds(pids)
                rate, texts[name] = decode(port, options.tokens)
                if number > 0:  # the first warms up
                    rates[name].append(rate)
                    spent[name].append((cpu_seconds(pids) - before) / options.tokens)
        memory = {name: memory_gb(pids) for name, (_, pids) in sides.items()}
    finally:
        one.stop()
        cluster.stop()
    base = rates["one process"]
    for name, values in rates.items():
        shares = [rate / other for rate, other in zip(values, base)]
        anonymous, files = memory[name]
        print(f"{name:44} {statistics.median(values):8.2f} tok/s {100 * statistics.median(shares):6.1f} %   CPU {1000 * statistics.median(spent[name]):7.1f} ms "
              f"a token, memory {anonymous:.2f} GB and {files:.2f} GB of mapped files")
    if len(set(texts.values())) != 1:
        sys.exit("the answers differ")


if __name__ == "__main__":
    main()
