#!/usr/bin/env python3
"""Asks a server the demo model's evaluation set over HTTP, in f32 and bf16, and compares with the reference's verdicts.
Usage: eval.py BINARY SOURCE_DIR [ITEMS]. Exit status 0 if f32 gives the reference's verdict on 99 % of the items and is at most 2 items behind,
and bf16 is at most 2 points behind."""

import base64
import concurrent.futures
import json
import pathlib
import sys

import serve_test

DEMO_EVAL = serve_test.DEMO / "eval"


def part_of(part):
    url = lambda name: "data:image/png;base64," + base64.b64encode((DEMO_EVAL / name).read_bytes()).decode()
    if part["type"] == "image":
        return {"type": "image_url", "image_url": {"url": url(part["image"])}}
    if part["type"] == "video":
        return {"type": "video", "video": [url(frame) for frame in part["frames"]], "fps": part["fps"]}
    return part


def is_right(server, item):
    messages = [m if isinstance(m["content"], str) else {**m, "content": [part_of(p) for p in m["content"]]} for m in item["messages"]]
    status, answer = server.chat({"messages": messages, "temperature": 0, "max_completion_tokens": 160,
                                  "chat_template_kwargs": {"enable_thinking": bool(item.get("thinking"))}})
    if status != 200:
        raise RuntimeError(f"{item['id']}: {answer}")
    text = (answer["choices"][0]["message"]["content"] or "").strip()
    return all(w in text for w in item["contains"]) if item["match"] == "contains" else text == item["answer"].strip()


def main():
    items = [json.loads(line) for line in (DEMO_EVAL / "items.jsonl").read_text().splitlines()]
    if len(sys.argv) > 3:
        items = items[:int(sys.argv[3])]
    reference = [bool(item["reference_correct"]) for item in items]
    good = True
    for compute in ("f32", "bf16"):
        server = serve_test.Server(serve_test.BINARY, "--compute", compute)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda item: is_right(server, item), items))
        good = server.stop() == 0 and good
        same = sum(r == w for r, w in zip(results, reference))
        behind = sum(reference) - sum(results)
        print(f"{compute}: {sum(results)} of {len(items)} right, reference {sum(reference)}, same verdict on {same}")
        good = good and (same >= 0.99 * len(items) and behind <= 2 if compute == "f32" else behind <= 0.02 * len(items))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
