#!/usr/bin/env python3
"""A server that nobody asks uses no CPU: under 0.5 % of a core, with all of its threads, after it has answered. Usage: idle_test.py MOESAIC SOURCE_DIR"""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from all_in_one import Server  # noqa: E402

SECONDS = 10
LIMIT = 0.005  # of a core
QUESTION = {"messages": [{"role": "user", "content": "Who are you?"}], "temperature": 0, "max_completion_tokens": 16}


def cpu_seconds(pid):
    """Of all threads, to the nanosecond: clock_getcpuclockid(3), whose clock ids the kernel makes so."""
    return time.clock_gettime(~pid << 3 | 2)


def main():
    binary, source = sys.argv[1], pathlib.Path(sys.argv[2])
    model = source / "configs/models/ernie-vl-demo"
    server = Server(binary, "--model", str(model))
    try:
        status, answer = server.chat(QUESTION)
        assert status == 200 and answer["usage"]["completion_tokens"] > 0, (status, answer)
        time.sleep(1)  # what the request left to be done: spans, connections
        before = cpu_seconds(server.process.pid)
        assert before > 0, "the clock does not run"
        time.sleep(SECONDS)
        share = (cpu_seconds(server.process.pid) - before) / SECONDS
        status, again = server.chat(QUESTION)
        assert status == 200 and again["choices"] == answer["choices"], "it answers as before"
    finally:
        server.stop()
    print(f"idle: {100 * share:.3f} % of a core in {SECONDS} s; {before:.2f} s before")
    assert share < LIMIT, f"{100 * share:.2f} % of a core while idle"


if __name__ == "__main__":
    main()
