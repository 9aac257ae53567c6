"""Questions for the demo model: with and without images, greedy and sampled, thinking and not."""

import json
import pathlib

from cluster import image_url


def as_request(case, demo):
    def part(p):
        if p["type"] == "image":
            return {"type": "image_url", "image_url": {"url": image_url(demo / p["image"])}}
        if p["type"] == "video":
            return {"type": "video", "video": [image_url(demo / frame) for frame in p["frames"]], "fps": p["fps"]}
        return p

    messages = [m if isinstance(m["content"], str) else {**m, "content": [part(p) for p in m["content"]]} for m in case["messages"]]
    return {"messages": messages, "chat_template_kwargs": {"enable_thinking": case["thinking"]}}


def questions(source, count, images=True):
    """Every second one is sampled with a seed of its own."""
    demo = pathlib.Path(source) / "configs" / "models" / "ernie-vl-demo"
    cases = json.loads((demo / "cases.json").read_text())["cases"]
    if not images:
        cases = [case for case in cases if not case["visual_grids"]]
    return [{**as_request(cases[number // 2 % len(cases)], demo), "max_completion_tokens": 160, "seed": number,
             "temperature": 0.9 if number % 2 else 0} for number in range(count)]
