#!/usr/bin/env python3
"""ops/alerts, ops/grafana, ops/prometheus, ops/runbooks: rules and queries parse, pass their own tests, and speak only of metrics
that the code has. Usage: observability_test.py SOURCE_DIR MOESAIC [unittest arguments]"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from needs import needs_tools

SOURCE = pathlib.Path(sys.argv[1])
MOESAIC = sys.argv[2]
ALERTS = SOURCE / "ops" / "alerts"
DASHBOARDS = sorted((SOURCE / "ops" / "grafana").glob("*.json"))
RULES = sorted(ALERTS.glob("*.rules.yaml"))

# Labels that Prometheus, not the service, gives.
SCRAPED = {"job", "instance", "le", "__name__"}
# What Grafana puts in.
VARIABLES = {"$__rate_interval": "5m", "$__interval": "1m"}


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)


def read_metrics():
    """{name: (type, labels, buckets)} as the program itself lists them."""
    page = run(MOESAIC, "doctor", "--metrics")
    assert page.returncode == 0, page.stderr
    metrics = {}
    for name, kind, labels in re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \| ([^|]*) \|", page.stdout, re.MULTILINE):
        metrics[name] = (kind, set(re.findall(r"`(\w+)`", labels)), [])
    for name, bounds in re.findall(r"^\| `(\w+)` \|((?: [0-9.e+-]+)+) \|$", page.stdout, re.MULTILINE):
        metrics[name][2].extend(float(bound) for bound in bounds.split())
    return metrics


def walk(value):
    yield value
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from walk(item)


def queries(dashboard):
    return [item["expr"] for item in walk(dashboard) if isinstance(item, dict) and "expr" in item]


def filled_in(query, variables=()):
    for name, text in VARIABLES.items():
        query = query.replace(name, text)
    for name in variables:
        query = query.replace("$" + name, ".*")
    return query


def rule_expressions(text):
    """Of a rules file: [(alert, expression)]"""
    found = []
    for block in re.split(r"^ {6}- alert: ", text, flags=re.MULTILINE)[1:]:
        name, rest = block.split("\n", 1)
        folded = re.search(r"^ {8}expr: (?:>-\n((?: {10}.*\n)+)|(.*)\n)", rest, re.MULTILINE)
        found.append((name.strip(), (folded[1] or folded[2]).strip()))
    return found


def faults(expression, metrics):
    """What an expression says of metrics that is not so."""
    for name in set(re.findall(r"\bmoesaic_\w+", expression)):
        base = name if name in metrics else re.sub(r"_(bucket|sum|count)$", "", name)
        if base not in metrics:
            yield f"{name} is no metric"
            continue
        kind, labels, buckets = metrics[base]
        if (base == name) == (kind == "histogram"):
            yield f"{name} is used as if {base} were no {kind}"
        for matchers in re.findall(re.escape(name) + r"\{([^}]*)\}", expression):
            for label, value in re.findall(r'(\w+)\s*[=!]~?\s*"([^"]*)"', matchers):
                if label not in labels | SCRAPED:
                    yield f"{name} has no label {label}"
                if label == "le" and float(value) not in buckets:
                    yield f"{name} has no bucket {value}"
    known = SCRAPED.union(*(labels for _, labels, _ in metrics.values()))
    for listed in re.findall(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)", expression):
        for label in filter(None, re.split(r"[,\s]+", listed)):
            if label not in known:
                yield f"no metric has a label {label}"


class AlertsTest(unittest.TestCase):
    def setUp(self):
        needs_tools("promtool")

    def test_rules_parse(self):
        checked = run("promtool", "check", "rules", *RULES)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_rules_do_what_their_tests_say(self):
        for rules in RULES:
            with self.subTest(rules.name):
                tested = run("promtool", "test", "rules", ALERTS / rules.name.replace(".rules.", ".test."))
                self.assertEqual(tested.returncode, 0, tested.stdout + tested.stderr)

    def test_every_alert_fires_in_a_test_and_stays_silent_in_one(self):
        for rules in RULES:
            tests = (ALERTS / rules.name.replace(".rules.", ".test.")).read_text()
            for alert, _ in rule_expressions(rules.read_text()):
                with self.subTest(alert):
                    self.assertRegex(tests, rf"alertname: {alert}\n\s+exp_alerts:\n")
                    self.assertIn(f"alertname: {alert}, exp_alerts: []", tests)

    def test_every_alert_has_a_severity_and_a_runbook(self):
        for rules in RULES:
            blocks = re.split(r"^ {6}- alert: ", rules.read_text(), flags=re.MULTILINE)[1:]
            self.assertTrue(blocks, rules.name)
            for block in blocks:
                name = block.split("\n", 1)[0]
                with self.subTest(name):
                    self.assertRegex(block, r"severity: (critical|warning)")
                    page = SOURCE / re.search(r"runbook: (ops/runbooks/\w+\.md)", block)[1]
                    self.assertIn(re.sub(r"Fast$", "", name), page.read_text().split("\n", 1)[0].replace("[Fast]", ""))

    def test_prometheus_configurations_parse(self):
        for config in sorted((SOURCE / "ops" / "prometheus").glob("*.yml")):
            checked = run("promtool", "check", "config", config)
            self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_alerts_cover_what_operators_were_promised(self):
        names = {alert for rules in RULES for alert, _ in rule_expressions(rules.read_text())}
        self.assertLessEqual(
            {"MoesaicShardSilent", "MoesaicShardsUneven", "MoesaicTtftBudgetBurns", "MoesaicInterTokenBudgetBurns",
             "MoesaicQueueNearlyFull", "MoesaicRequestsRejected", "MoesaicKvNearlyFull", "MoesaicWireDrops",
             "MoesaicHandshakeFailures", "MoesaicPlacementDiffers", "MoesaicCrashLoop", "MoesaicReadinessFlaps"}, names)


class DashboardsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.boards = {path.name: json.loads(path.read_text()) for path in DASHBOARDS}

    def test_there_are_four(self):
        self.assertEqual(list(self.boards), ["experts.json", "request_journey.json", "service.json", "wire.json"])
        self.assertEqual(len({board["uid"] for board in self.boards.values()}), 4)

    def variables(self, board):
        return [variable["name"] for variable in board["templating"]["list"]]

    def check(self, expressions):
        """promtool's words about these expressions, as recording rules."""
        rules = "groups:\n- name: queries\n  rules:\n"
        rules += "".join(f"  - record: q{i}\n    expr: {json.dumps(expression)}\n" for i, expression in enumerate(expressions))
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(rules)
            file.flush()
            return run("promtool", "check", "rules", file.name)

    def test_every_query_parses(self):
        needs_tools("promtool")
        for name, board in self.boards.items():
            with self.subTest(name):
                expressions = [filled_in(query, self.variables(board)) for query in queries(board)]
                self.assertGreater(len(expressions), 10)
                self.assertFalse([e for e in expressions if "$" in e], "a variable that the board does not have")
                checked = self.check(expressions)
                self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_a_broken_query_would_be_found(self):
        needs_tools("promtool")
        self.assertNotEqual(self.check(["sum by (le (rate(up[5m]))"]).returncode, 0)

    def test_panels_have_their_own_id_place_and_words(self):
        for name, board in self.boards.items():
            with self.subTest(name):
                panels = board["panels"]
                ids = [panel["id"] for panel in panels]
                self.assertEqual(len(ids), len(set(ids)))
                cells = [(x, y) for p in panels for g in [p["gridPos"]]
                         for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])]
                self.assertEqual(len(cells), len(set(cells)), "panels overlap")
                self.assertLess(max(x for x, _ in cells), 24)
                for panel in panels:
                    self.assertTrue(panel["title"])
                    if panel["type"] != "row":
                        self.assertTrue(panel["description"], panel["title"])
                        self.assertTrue(panel["targets"], panel["title"])

    def test_the_data_source_is_a_variable_everywhere(self):
        for name, board in self.boards.items():
            with self.subTest(name):
                self.assertEqual(board["templating"]["list"][0]["type"], "datasource")
                sources = [item["datasource"] for item in walk(board) if isinstance(item, dict) and "datasource" in item]
                self.assertTrue(sources)
                self.assertEqual([s for s in sources if s != {"type": "prometheus", "uid": "${datasource}"}], [])

    def test_the_wire_board_shows_bytes_per_generated_token(self):
        per_token = [panel for panel in self.boards["wire.json"]["panels"] if any(
            "moesaic_wire_bytes_total" in t["expr"] and "moesaic_request_generated_tokens_total" in t["expr"]
            for t in panel.get("targets", []))]
        self.assertTrue(per_token)


class NamesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.metrics = read_metrics()

    def test_the_program_lists_metrics_with_labels_and_buckets(self):
        self.assertEqual(self.metrics["moesaic_http_requests_total"][1], {"route", "method", "status"})
        self.assertIn(2.5, self.metrics["moesaic_request_ttft_seconds"][2])

    def test_dashboards_speak_of_metrics_that_exist(self):
        for path in DASHBOARDS:
            board = json.loads(path.read_text())
            texts = queries(board) + [v["definition"] for v in board["templating"]["list"] if "definition" in v]
            for text in texts:
                with self.subTest(board=path.name, query=text):
                    self.assertEqual(list(faults(text, self.metrics)), [])

    def test_rules_speak_of_metrics_that_exist(self):
        for rules in RULES:
            for alert, expression in rule_expressions(rules.read_text()):
                with self.subTest(alert):
                    self.assertEqual(list(faults(expression, self.metrics)), [])

    def test_wrong_names_would_be_found(self):
        for wrong in ("moesaic_request_ttft_seconds", "rate(moesaic_nothing_total[5m])", 'moesaic_kv_usage_ratio{shard="a"}',
                      "moesaic_kv_usage_ratio_count", 'moesaic_request_ttft_seconds_bucket{le="3"}', "sum by (nothing) (moesaic_kv_usage_ratio)"):
            with self.subTest(wrong):
                self.assertTrue(list(faults(wrong, self.metrics)))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
