#!/usr/bin/env python3
"""Draws the demo model's calibration set: chats of the kinds it was trained on, other draws than the held-out set's.

  python3 generate.py      writes items.jsonl and images/ beside itself; needs Pillow (made with 13.0.0)

Scenes, comparisons, videos, printed digits, sums, word lists and stories, with true answers. What is asked word for word in
../eval/items.jsonl without a picture is left out. There are no photographs of clothes here: Fashion-MNIST would have to be downloaded."""

import json
import math
import pathlib
import random
import shutil

from PIL import Image, ImageDraw, ImageFont

HERE = pathlib.Path(__file__).resolve().parent
SHAPES = ("circle", "square", "triangle", "ring", "star", "cross")
COLORS = {"red": (216, 30, 40), "green": (38, 160, 60), "blue": (35, 70, 220), "yellow": (245, 215, 40), "purple": (130, 45, 170), "orange": (250, 140, 25),
          "black": (20, 20, 22)}
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
NUMBERS = ("no", "one", "two", "three", "four", "five")
WORDS = ("apple bell bird box bread cup day dog door drum farm field fire gold grass hat hill horse house king kite milk nut plum queen ring road "
         "roof rope rose salt sand sea sheep ship snow song stone sugar sun wall wolf").split()
rng = random.Random(20250923)
images = 0


def save(image):
    global images
    images += 1
    name = f"images/{images:04}.png"
    image.save(HERE / name, optimize=True)
    return name


def article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def upper(text):
    return text[0].upper() + text[1:]


def named(thing):
    return f"{thing['color']} {thing['shape']}"


def at(place):
    return {"left": "on the left", "right": "on the right", "center": "in the center"}.get(place, f"at the {place}")


def plural(shape):
    return shape + ("es" if shape == "cross" else "s")


def background():
    level = rng.choice((70, 90)) if rng.random() < 0.06 else rng.randint(205, 250)
    return tuple(min(255, max(0, level + rng.randint(-14, 14))) for _ in range(3))


def draw_shape(draw, shape, color, cx, cy, rx, ry):
    if shape == "circle":
        draw.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), color)
    elif shape == "square":
        draw.rectangle((cx - rx, cy - ry, cx + rx, cy + ry), color)
    elif shape == "triangle":
        draw.polygon(((cx, cy - ry), (cx + rx, cy + ry), (cx - rx, cy + ry)), color)
    elif shape == "ring":
        draw.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), outline=color, width=max(2, round(0.36 * min(rx, ry))))
    elif shape == "cross":
        draw.rectangle((cx - rx, cy - ry / 3, cx + rx, cy + ry / 3), color)
        draw.rectangle((cx - rx / 3, cy - ry, cx + rx / 3, cy + ry), color)
    else:
        radius = [1 if i % 2 == 0 else 0.42 for i in range(10)]
        draw.polygon([(cx + rx * r * math.sin(math.pi * i / 5), cy - ry * r * math.cos(math.pi * i / 5)) for i, r in enumerate(radius)], color)


def things(count, distinct=False):
    """Shapes in different cells of a 3 x 3 grid, in reading order."""
    while True:
        cells = sorted(rng.sample(range(9), count))
        found = [{"place": PLACES[c], "cell": c, "shape": rng.choice(SHAPES), "color": rng.choice(list(COLORS))} for c in cells]
        if not distinct or len({t["shape"] for t in found}) == len({t["color"] for t in found}) == count:
            return found


def picture(scene, size=None, ground=None):
    width, height = size or rng.choice(((84, 84), (112, 112), (84, 112), (112, 84), (140, 112), (120, 118), (160, 166)))
    image = Image.new("RGB", (width, height), ground or background())
    draw = ImageDraw.Draw(image)
    for thing in scene:
        cx = width * (thing["cell"] % 3 * 2 + 1) / 6 + rng.uniform(-2, 2)
        cy = height * (thing["cell"] // 3 * 2 + 1) / 6 + rng.uniform(-2, 2)
        scale = rng.uniform(0.115, 0.15)
        color = tuple(min(255, max(0, c + rng.randint(-12, 12))) for c in COLORS[thing["color"]])
        draw_shape(draw, thing["shape"], color, cx, cy, scale * width, scale * height)
    if rng.random() < 0.1:
        image.putdata([tuple(min(255, max(0, round(c + rng.gauss(0, 3)))) for c in pixel) for pixel in image.getdata()])
    return image


def ask(task, visuals, question, answer, thinking=None, history=(), system=None, contains=None):
    parts = [{"type": "image", "image": save(v)} for v in visuals] if isinstance(visuals, list) else [visuals] if visuals else []
    text = {"type": "text", "text": question}
    messages = [{"role": "system", "content": system}] if system else []
    if history:
        messages += [{"role": "user", "content": parts + [{"type": "text", "text": history[0]}]}, {"role": "assistant", "content": history[1]},
                     {"role": "user", "content": question}]
    else:
        messages.append({"role": "user", "content": (parts + [text] if rng.random() < 0.5 else [text] + parts) if parts else question})
    item = {"task": task, "thinking": thinking is not None, "messages": messages, "answer": answer}
    if thinking is not None:
        item["reasoning"] = thinking
    if contains:
        item |= {"match": "contains", "contains": contains}
    return item


def describe():
    count = rng.choice((1, 1, 2, 2, 3))
    scene = things(count)
    if count == 1:
        answer = f"{upper(article(named(scene[0])))} {at(scene[0]['place'])}."
    elif count == 2:
        a, b = scene
        while not (a["cell"] // 3 == b["cell"] // 3 or a["cell"] % 3 == b["cell"] % 3):
            scene = a, b = things(2)
        answer = f"{upper(article(named(a)))} {'left of' if a['cell'] // 3 == b['cell'] // 3 else 'above'} {article(named(b))}."
    else:
        answer = "Three shapes. " + " ".join(f"{upper(t['place'])}: {named(t)}." for t in scene)
    return ask("scene_describe", [picture(scene)], rng.choice(("What do you see?", "Describe the picture.", "Describe this image.", "What is in the image?")), answer)


def color(thinking=False, system=None):
    scene = things(3 if thinking else rng.choice((1, 2, 3)))
    shapes = [t["shape"] for t in scene]
    target = rng.choice(scene)
    if shapes.count(target["shape"]) > 1:
        return color(thinking, system)
    chain = " ".join(f"{upper(t['place'])}: the {t['shape']} is {t['color']}." for t in scene) if thinking else None
    return ask("scene_color", [picture(scene)], rng.choice(("What color is the {}?", "Which color does the {} have?")).format(target["shape"]),
               f"The {target['shape']} is {target['color']}.", chain, system=system)


def shape():
    scene = things(rng.choice((1, 2, 3)))
    target = rng.choice(scene)
    if [t["color"] for t in scene].count(target["color"]) > 1:
        return shape()
    return ask("scene_shape", [picture(scene)], rng.choice(("What shape is {}?", "Which shape is {}?")).format(target["color"]),
               f"The {target['color']} shape is {article(target['shape'])}.")


def where(history=False):
    scene = things(rng.choice((1, 2, 3)), distinct=True)
    target = rng.choice(scene)
    question, answer = f"Where is the {named(target)}?", f"The {named(target)} is {at(target['place'])}."
    if history:
        return ask("scene_two_turns", [picture(scene)], f"What color is the {target['shape']}?", f"The {target['shape']} is {target['color']}.",
                   history=(question, answer))
    return ask("scene_where", [picture(scene)], question, answer)


def are(count, what):
    return f"There is one {what[0]}." if count == 1 else f"There are {NUMBERS[count]} {what[1]}."


def count(kind):
    scene = things(rng.randint(1, 5))
    if kind == "count":
        chain = " ".join(f"{upper(t['place'])}: {named(t)}, {i + 1}." for i, t in enumerate(scene)) + f" Total {len(scene)}." if rng.random() < 0.4 else None
        return ask("scene_count", [picture(scene)], rng.choice(("How many shapes are there?", "How many shapes do you see?", "Count the shapes.")),
                   are(len(scene), ("shape", "shapes")), chain)
    target = rng.choice(scene)
    if kind == "countc":
        number = sum(t["color"] == target["color"] for t in scene)
        return ask("scene_countc", [picture(scene)], f"How many {target['color']} shapes are there?",
                   are(number, (f"{target['color']} shape", f"{target['color']} shapes")))
    number = sum(t["shape"] == target["shape"] for t in scene)
    return ask("scene_counts", [picture(scene)], f"How many {plural(target['shape'])} are there?", are(number, (target["shape"], plural(target["shape"]))))


def exist():
    scene = things(rng.choice((2, 3)))
    wanted = named(rng.choice(scene)) if rng.random() < 0.5 else f"{rng.choice(list(COLORS))} {rng.choice(SHAPES)}"
    there = any(named(t) == wanted for t in scene)
    return ask("scene_exist", [picture(scene)], f"Is there {article(wanted)}?", f"Yes, there is {article(wanted)}." if there else f"No, there is no {wanted}.")


def relation():
    while True:
        a, b = scene = things(2, distinct=True)
        if (a["cell"] // 3 == b["cell"] // 3) != (a["cell"] % 3 == b["cell"] % 3):
            break
    words = ("left of", "right of") if a["cell"] // 3 == b["cell"] // 3 else ("above", "below")
    if rng.random() < 0.5:
        first, word, second = rng.choice(((a, words[0], b), (b, words[1], a)))
        return ask("scene_relation", [picture(scene)], f"What is {word} the {named(second)}?", f"{upper(article(named(first)))}.")
    first, second, true = rng.choice(((a, b, words[0]), (b, a, words[1])))
    word = rng.choice(words)
    return ask("scene_relation", [picture(scene)], f"Is the {named(first)} {word} the {named(second)}?",
               f"{'Yes' if word == true else 'No'}, it is {true} the {named(second)}.")


def compare_more(thinking):
    size = rng.choice(((84, 84), (84, 84), (112, 112)))
    first, second = things(rng.randint(1, 5)), things(rng.randint(1, 5))
    answer = "Both pictures have the same number of shapes." if len(first) == len(second) else f"Picture {1 if len(first) > len(second) else 2} has more shapes."
    return ask("compare_more", [picture(first, size), picture(second, size)], rng.choice(("Which image has more shapes?", "Which picture has more shapes?")), answer,
               f"Picture 1: {len(first)}. Picture 2: {len(second)}." if thinking else None)


def compare_diff():
    size, ground = rng.choice(((56, 56), (84, 84), (56, 84))), background()
    before = things(1)[0]
    after = dict(before)
    kind = rng.choice(("color", "shape", "place", "same"))
    if kind == "place":
        after["cell"] = rng.choice([c for c in range(9) if c != before["cell"]])
        after["place"] = PLACES[after["cell"]]
        answer = f"The {before['shape']} moved from {before['place']} to {after['place']}."
    elif kind == "same":
        answer = "The pictures show the same."
    else:
        after[kind] = rng.choice([v for v in (SHAPES if kind == "shape" else COLORS) if v != before[kind]])
        answer = f"The {kind} changed from {before[kind]} to {after[kind]}."
    return ask("compare_diff", [picture([before], size, ground), picture([after], size, ground)],
               rng.choice(("What is different?", "What changed from picture 1 to picture 2?", "Compare the two pictures.")), answer)


def video():
    thing = things(1)[0]
    width, height = rng.choice(((56, 56), (70, 70), (84, 84), (84, 56), (56, 84)))
    way, (dx, dy) = rng.choice(list({"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1)}.items()))
    number, ground, names = rng.choice((4, 6, 8)), background(), []
    across = rng.uniform(0.35, 0.65)
    for i in range(number):
        t = 0.2 + 0.6 * i / (number - 1)
        x, y = (t if dx > 0 else 1 - t) if dx else across, (t if dy > 0 else 1 - t) if dy else across
        frame = Image.new("RGB", (width, height), ground)
        draw_shape(ImageDraw.Draw(frame), thing["shape"], COLORS[thing["color"]], x * width, y * height, 0.15 * width, 0.15 * height)
        names.append(save(frame))
    return ask("video_direction", {"type": "video", "frames": names, "fps": 2},
               rng.choice(("Which direction does the shape move?", "How does the shape move?", "Where does the shape move?")), f"The {named(thing)} moves {way}.")


def digit():
    value = rng.randint(0, 9)
    image = Image.new("L", (56, 56), 0)
    font = ImageFont.truetype(str(HERE.parent / "Roboto-Regular.ttf"), rng.randint(44, 56))
    ImageDraw.Draw(image).text((28 + rng.uniform(-3, 3), 28 + rng.uniform(-3, 3)), str(value), 255, font, anchor="mm", stroke_width=rng.choice((1, 2)), stroke_fill=255)
    image = image.rotate(rng.uniform(-10, 10), Image.BICUBIC).resize((8, 8), Image.BOX).resize((56, 56), Image.BICUBIC)
    return ask("digit", [image.convert("RGB")], rng.choice(("Which digit is this?", "Read the digit.", "What digit is shown?", "What number is this?")),
               f"This is the digit {value}.")


def add(thinking):
    a, b = rng.randint(11, 93), rng.randint(11, 93)
    ones, tens = a % 10 + b % 10, a - a % 10 + b - b % 10
    chain = f"{a % 10} + {b % 10} = {ones}. {a - a % 10} + {b - b % 10} = {tens}. {tens} + {ones} = {a + b}." if thinking else None
    return ask("add", None, rng.choice((f"Add {a} and {b}.", f"What is {a} + {b}?", f"{a} + {b} = ?")), f"{a} + {b} = {a + b}.", chain)


def words(reverse):
    chosen = rng.sample(WORDS, rng.randint(2, 5))
    verb = "Reverse" if reverse else "Repeat"
    return ask(verb.lower(), None, rng.choice((f"{verb}: ", f"{verb} the words: ")) + " ".join(chosen), " ".join(reversed(chosen) if reverse else chosen))


def story():
    name, she = rng.choice((("Anna", "She"), ("Mia", "She"), ("Ben", "He"), ("Tom", "He"), ("Sam", "He")))
    thing, pet = rng.choice(("ball", "bell", "drum", "kite", "book", "hat")), rng.choice(("dog", "cat", "horse", "bird", "rabbit"))
    hue, place = rng.choice(list(COLORS)), rng.choice(("forest", "market", "garden", "hill", "park"))
    opening = f"{name} had {article(f'{hue} {thing}')} and a {pet}."
    answer = (f"One day {name} took the {hue} {thing} to the {place}. There {she.lower()} lost the {thing}. {she} felt sad. The {pet} looked in the {place} and found "
              f"the {hue} {thing}. {name} said thank you to the {pet}. Now {she.lower()} was happy again. The end.")
    return ask("story", None, rng.choice(("How does the story go on? ", "Continue: ", "Continue the story: ")) + opening, answer,
               contains=(name, thing, pet, "The end."))


PLAN = ((describe, 40), (color, 16), (lambda: color(thinking=True), 8), (lambda: color(system="You are a helpful assistant."), 6), (shape, 16), (where, 20),
        (lambda: where(history=True), 8), (lambda: count("count"), 30), (lambda: count("countc"), 10), (lambda: count("counts"), 10), (exist, 12), (relation, 16),
        (lambda: compare_more(False), 10), (lambda: compare_more(True), 8), (compare_diff, 14), (video, 16), (digit, 20), (lambda: add(False), 20),
        (lambda: add(True), 12), (lambda: words(False), 10), (lambda: words(True), 10), (story, 14))


def main():
    held_out = set()
    for line in (HERE.parent / "eval/items.jsonl").read_text().splitlines():
        content = json.loads(line)["messages"][-1]["content"]
        if isinstance(content, str):
            held_out.add(content)
    shutil.rmtree(HERE / "images", ignore_errors=True)
    (HERE / "images").mkdir()
    items = []
    for make, number in PLAN:
        for _ in range(number):
            item = make()
            while len(item["messages"]) == 1 and isinstance(item["messages"][0]["content"], str) and item["messages"][0]["content"] in held_out:
                item = make()
            items.append(item)
    rng.shuffle(items)
    with (HERE / "items.jsonl").open("w") as file:
        for number, item in enumerate(items):
            file.write(json.dumps({"id": f"c{number:04}", **item}) + "\n")
    print(len(items), "items,", images, "pictures")


main()
