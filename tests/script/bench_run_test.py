"""The bench's runner: scenarios that are wrong are refused by file and key, figures are what they say, the gate judges
as it should, and a short run against a real engine ends in results that can be read."""
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
import unittest
import unittest.mock
import xml.dom.minidom

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness

RUN = os.path.join(harness.ROOT, "bench", "run")
sys.path.insert(1, RUN)
import figures
import gate
import measure
import peers
import plots
import report
import rig
import rounds
import scenario
import targets

GOOD = 'shows = "something"\n[[calls]]\ntool = "bench.read"\n'
WRONG = (       # text of a file, what the error must name
    ("", "shows: is missing"),
    ('shows = ""\n', "shows"),
    (GOOD.split("[[")[0], "calls: expected at least one"),
    ('color = "red"\n' + GOOD, "color: there is no such key"),
    (GOOD + "[lode]\nseconds = 1\n", "lode: there is no such key"),
    (GOOD + "[load]\nsecond = 1\n", "load.second: there is no such key"),
    (GOOD + '[load]\nmode = "ajar"\n', "load.mode"),
    (GOOD + "[load]\nin_flight = 0\n", "load.in_flight"),
    (GOOD + "[load]\nin_flight = true\n", "load.in_flight"),
    (GOOD + '[load]\nseconds = "3"\n', "load.seconds"),
    (GOOD + '[load]\nmode = "open"\nrate = "fast"\n', "load.rate"),
    (GOOD + '[load]\nmode = "open"\nphases = ["1x"]\n', "load.phases"),
    (GOOD + '[load]\nphases = ["1x:2"]\n', "load.phases: needs mode"),
    (GOOD + '[load]\nera = "2024-11-05"\n', "load.era"),
    (GOOD + "[callers]\nusers = 2000000\n", "callers.users"),
    (GOOD + '[upstream]\ndelay = "5ms"\n', "upstream.delay"),
    (GOOD + '[upstream]\nfail = "often"\n', "upstream.fail"),
    (GOOD + '[upstream]\ntls = "yes"\n', "upstream.tls"),
    (GOOD + "[engine]\nlimits = 3\n", "engine.limits"),
    ('systems = ["apache"]\n' + GOOD, "systems"),
    (GOOD + "weight = 0\n", "calls.weight"),
    ('shows = "x"\n[[calls]]\narguments = {}\n', "calls.tool: is missing"),
    (GOOD + '[[events]]\nsignal = "HUP"\n', "events.at: is missing"),
    (GOOD + '[[events]]\nat = 1\nsignal = "KILL"\n', "events.signal"),
    (GOOD + '[[cases]]\nload = { seconds = 1 }\n', "cases.name"),
    (GOOD + '[[cases]]\nname = "a"\n[[cases]]\nname = "a"\n', 'cases.name: "a" is there twice'),
    (GOOD + '[[cases]]\nname = "a"\nlod = { seconds = 1 }\n', "cases.lod: there is no such section"),
    (GOOD + '[[cases]]\nname = "a"\nload = 3\n', "cases.load: expected a table"),
    (GOOD + '[[cases]]\nname = "a"\nload = { secs = 3 }\n', "load.secs: there is no such key"),
    ("cases = 3\n" + GOOD, "cases: expected [[cases]]"),
    ("shows = \n", "Invalid value"),
)


class Scenarios(unittest.TestCase):
    def of(self, text):
        path = os.path.join(harness.scratch(), "wrong.toml")
        with open(path, "w") as f:
            f.write(text)
        return scenario.load(path)

    def test_each_mistake_is_named_with_file_and_key(self):
        for text, said in WRONG:
            with self.subTest(said):
                with self.assertRaises(scenario.Wrong) as e:
                    self.of(text)
                self.assertIn("wrong.toml", str(e.exception))
                self.assertIn(said, str(e.exception))

    def test_a_case_replaces_keys_and_keeps_the_others(self):
        s = self.of(GOOD + '[load]\nseconds = 2\nin_flight = 8\n[[cases]]\nname = "a"\nload = { in_flight = 9 }\n'
                           '[[cases]]\nname = "b"\nengine = { workers = 2 }\n')
        self.assertEqual([(c.load["seconds"], c.load["in_flight"]) for c in s.cases], [(2, 9), (2, 8)])
        self.assertNotEqual(s.cases[0].rig(), s.cases[1].rig())

    def test_cases_that_call_other_providers_do_not_share_an_engine(self):
        s = self.of(GOOD + '[[cases]]\nname = "a"\n[[cases]]\nname = "b"\ncalls = [{ tool = "bench.write" }]\n'
                           '[[cases]]\nname = "c"\ncalls = [{ tool = "outlook.list_mail" }]\n')
        self.assertEqual([c.providers() for c in s.cases], [["bench"], ["bench"], ["outlook"]])
        self.assertEqual(s.cases[0].rig(), s.cases[1].rig())
        self.assertNotEqual(s.cases[0].rig(), s.cases[2].rig())

    def test_those_of_the_project_can_be_read_and_rows_find_their_cells(self):
        known = scenario.all_of()
        for name in ("read", "read-tls", "write", "cold-tokens", "in-flight", "waiters", "refresh-storm", "overload",
                     "noisy-neighbour", "mailbox-storm", "policies", "accounts", "tenants", "slow-upstream", "latency",
                     "workers"):
            self.assertIn(name, known)
        asked = []
        with unittest.mock.patch.object(targets, "cell", lambda results, *which: asked.append(which)):
            for _, figure, *_ in targets.ROWS:
                self.assertIsNone(figure({}))
        self.assertGreater(len(asked), len(targets.ROWS))
        for name, case, system in asked:
            self.assertIn(case, [c.name for c in known[name].cases], name)
            self.assertIn(system.removesuffix(rounds.AGAIN), known[name].systems, name)


    def test_the_tuned_program_is_not_trained_by_what_its_rows_measure(self):
        with open(os.path.join(harness.ROOT, "dev")) as f:
            trained = [n for words in re.findall(r"\btrain ((?:[a-z-]+ ?)+)", f.read()) for n in words.split()
                       if os.path.exists(os.path.join(scenario.FOLDER, n + ".toml"))]
        self.assertEqual(sorted(trained), ["cold-tokens", "mixed", "training"])
        asked = []
        with unittest.mock.patch.object(targets, "cell", lambda results, *which: asked.append(which[0])):
            for _, figure, *_ in targets.ROWS:
                figure({})
        self.assertEqual(set(asked) & set(trained), set())
        known = scenario.all_of()
        measured = [(c["tool"], c["arguments"]) for n in set(asked) for case in known[n].cases for c in case.calls]
        for case in known["training"].cases:
            for c in case.calls:
                self.assertNotIn((c["tool"], c["arguments"]), measured)


class Figures(unittest.TestCase):
    def spread(self, *values):
        return figures.spread(values)

    def test_spread_and_ratio(self):
        self.assertEqual(self.spread(3, 1, 2), {"median": 2, "least": 1, "most": 3, "n": 3})
        self.assertIsNone(figures.spread([None]))
        self.assertEqual(figures.ratios([2, 4], [1, 4])["median"], 1.5)

    def test_growth_is_what_came_after_the_caches_were_full(self):
        self.assertIsNone(figures.drift([1, 2, 3, 4]))
        self.assertEqual(figures.drift([0, 7, 7, 7, 7]), 0)
        self.assertEqual(figures.drift([0, 0, 10, 12, 20, 20, 20, 20, 13, 15]), 3)

    def test_histograms_are_put_together(self):
        merged = figures.merge_buckets([[[10, 1], [20, 2]], [[20, 1], [30, 4]]])
        self.assertEqual(merged, [[10, 1], [20, 3], [30, 4]])
        self.assertEqual(figures.quantile(merged, 0.5), 20)
        self.assertEqual(figures.quantile(merged, 0.99), 30)
        self.assertIsNone(figures.quantile([], 0.5))

    def test_only_what_is_beyond_noise_is_a_difference(self):
        old = [10, 10.2, 9.9]
        for new, noise, verdict in (([10.3, 10.4, 10.3], 0.05, "within noise"), ([12, 12.3, 11.9], 0.05, "more"),
                                    ([8, 8.2, 8.1], 0.05, "less"), ([9, 13, 12], 0.05, "within noise"),
                                    ([12, 12.3, 11.9], None, "unknown"), ([12, 12.3], 0.05, "unknown"),
                                    ([12] * 9 + [9], 0.05, "more")):     # one bad round of ten hides nothing
            self.assertEqual(figures.beyond_noise(old, new, noise)[1], verdict, new)
        self.assertEqual(figures.beyond_noise(old[:2], [12, 12, 12], 0.05)[1], "unknown")
        self.assertEqual(figures.beyond_noise(None, old, 0.05), (None, "unknown"))

    def test_half_more_and_half_less_is_noise(self):
        s = figures.apart([1.5, 0.5, 1.5, 0.5, 1], [1, 1, 1, 1, 1])
        self.assertEqual((s["median"], s["most"], s["n"]), (0.5, 0.5, 5))
        self.assertIsNone(figures.apart([1], [0]))

    def test_plots_are_xml_and_nothing_of_them_is_elsewhere(self):
        s = self.spread(1, 2, 3)
        for svg in (plots.bars([("a<b", s, "#000"), ("b", self.spread(500, 510), "#000"), ("c", s, "#000")], "us"),
                    plots.distributions([("a&b", [[100, 5], [1000, 1]], "#000")]),
                    plots.timeline([{"t": i, "offered": 10 ** i, "ok": i, "refused": 0} for i in range(5)], ["1x:5"])):
            xml.dom.minidom.parseString(svg)
        self.assertEqual(plots.distributions([("a", [], "#000")]), "")


class Rows(unittest.TestCase):
    """Figures and rows are of calls that were done."""

    def run_of(self, **counts):
        got = {"offered": 100, "sent": 100, "ok": 0, "refused": 0, "failed": 0, "late": 0, "answered": 100,
               "reasons": {}, "rate_ok": 0.0, "seconds": 1, "latency_us": {}, "refused_us": {}, "groups": {},
               "phases": [], "timeline": [], "bytes_in": 0, "bytes_out": 0, "cpu_s": 0.1, **counts}
        watch = types.SimpleNamespace(cpu_before=(0, 0), cpu_after=(1, 1), before=None, samples=[])
        return rounds.figures_of(got, watch, {"pss": 0, "anonymous": 0}, types.SimpleNamespace(name="nginx"))

    def test_a_run_in_which_nothing_was_done_has_no_figures(self):
        for counts in ({"failed": 100, "reasons": {"policy_denied": 100}}, {"refused": 100}, {"answered": 0}):
            with self.assertRaisesRegex(rounds.Failed, "nginx: no call was done"):
                self.run_of(**counts)
        self.assertEqual(self.run_of(ok=100, rate_ok=100.0)["cpu_us"], 20000)

    @staticmethod
    def cell(system, case="", **more):
        return {"case": case, "system": system, "ok": 1000, "refused": 0, "failed": 0, "late": 0,
                "cpu_us_rounds": [1, 1, 1], "p50_rounds": [1, 1, 1], "p99_rounds": [1, 1, 1], **more}

    def rows(self, scenario, *cells):
        return {what: (targets.in_words(s, unit, 6), verdict) for what, s, unit, _, _, verdict in
                targets.judged({scenario: {"cells": list(cells)}})}

    def test_no_row_of_calls_that_were_not_done(self):
        row = targets.ROWS[0][0]
        self.assertEqual(self.rows("read", self.cell("nginx"), self.cell("sluice", failed=10))[row][1], "met")
        for bad in ({"failed": 11}, {"refused": 11}, {"failed": 6, "refused": 6}):
            said, verdict = self.rows("read", self.cell("nginx"), self.cell("sluice", **bad))[row]
            self.assertEqual(verdict, "unfit")
            self.assertIn("no figure: sluice: %d of" % sum(bad.values()), said)
            said, verdict = self.rows("read", self.cell("nginx", **bad), self.cell("sluice"))[row]
            self.assertIn("no figure: nginx: ", said)


    def test_no_row_of_latencies_where_much_was_not_sent(self):
        row = next(what for what, *_ in targets.ROWS if what.startswith("added p99"))
        said, verdict = self.rows("latency", self.cell("nginx"), self.cell("sluice", late=1))[row]
        self.assertEqual((said, verdict), ("0 us (0..0), 3 rounds", "aim"))
        said, verdict = self.rows("latency", self.cell("nginx"), self.cell("sluice", late=2))[row]
        self.assertEqual((said, verdict), ("no figure: sluice: 2 of 1002 calls were due and not sent, so many were "
                                           "under way", "unfit"))

    def test_refusals_are_those_of_ten_times_the_capacity(self):
        row = next(what for what, *_ in targets.ROWS if "p99 of refusals" in what)
        c = self.cell("sluice", "places", refused=9000, phases=["1x:2", "10x:3", "0.5x:2"], timelines=[],
                      phases_refused_p99=[None, figures.spread([4000, 4000]), figures.spread([90000, 90000])])
        self.assertEqual(self.rows("overload", c)[row], ("4.0 ms (4.0..4.0), 2 rounds", "met"))

    def test_how_many_rounds_is_said_where_it_is_not_the_headings(self):
        s = figures.spread([1.5])
        self.assertEqual(targets.in_words(s, "x", 5), "1.50x (1.50..1.50), 1 round")
        self.assertEqual(targets.in_words(s, "x", 1), "1.50x (1.50..1.50)")

    def test_what_was_not_sent_is_told(self):
        latency = {"p50": 1, "p99": 2}
        run = {"cpu_us": 1, "rate_ok": 1, "latency_us": latency, "refused": 0, "failed": 3, "late": 7}
        with unittest.mock.patch.object(rounds, "say") as said:
            rounds.show(None, 0, 1, types.SimpleNamespace(label=lambda: "nginx"), run)
        self.assertIn("3 failed  7 late", said.call_args[0][0])
        s = figures.spread([1])
        c = dict(self.cell("nginx", late=7), syscalls=None, **{k: s for k in (
            "cpu_us", "user_us", "system_us", "rate_ok", "p50", "p99", "p999", "bytes_in", "bytes_out", "memory_pss")})
        self.assertEqual(dict(report.columns(c))["late"], "7")


class Noise(unittest.TestCase):
    """Two cases; of the first the CPU is as noisy as the p50 of the second."""

    def result(self, cpu=1.0, n=4):
        cells = []
        for case, noisy in (("a", "cpu_us"), ("b", "p50")):
            for system in ("nginx", "sluice", "nginx'"):
                c = {"case": case, "system": system, "rounds": n}
                for f in targets.NOISY:
                    off = [0.6, 1.4] if f == noisy and system == "nginx'" else [1, 1]
                    c[f + "_rounds"] = [v * (cpu if system == "sluice" and f == "cpu_us" else 1) for v in off * n][:n]
                cells.append(c)
        return {"cells": cells, "cpu_loop_s": figures.spread([1, 1.1])}

    def compared(self, old, new):
        data = [{"machine": {"cpu": "", "kernel": "", "cpus": 2}, "scenarios": {"x": r}} for r in (old, new)]
        return "\n".join(report.compare(*data))

    def test_it_is_of_each_case_and_figure(self):
        n = targets.noise(self.result())
        self.assertEqual([round(n[c][f]["median"], 6) for c in "ab" for f in ("cpu_us", "p50", "p99")],
                         [0.4, 0, 0, 0, 0.4, 0])
        self.assertIn("nginx against itself in the same round, median of 4 (worst), the largest of 2 cases: "
                      "CPU 40.0 % (40.0 %), p50 40.0 % (40.0 %), p99 0.0 % (0.0 %)",
                      report.noise_in_words(self.result()))
        out = self.compared(self.result(), self.result(cpu=1.2))
        self.assertRegex(out, r"a sluice +CPU us/call / nginx .* 1\.20x  within noise  noise 40\.0 %")
        self.assertRegex(out, r"b sluice +CPU us/call / nginx .* 1\.20x  more +noise 0\.0 %")

    def test_without_a_measure_of_it_nothing_is_known(self):
        result = self.result(n=2)
        self.assertRegex(self.compared(result, result), r"sluice +CPU.* 1\.00x  unknown")
        alone = self.result(cpu=2)
        alone["cells"] = [c for c in alone["cells"] if c["system"] == "sluice"]
        self.assertIn("unknown", report.noise_in_words(alone))
        self.assertRegex(self.compared(self.result(), alone), r"sluice +p99.* 1\.00x  unknown +noise unknown")


BUSY = """
import http.server, sys, time
class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
        open(sys.argv[1], "w").close()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"sluice_calls_total 7\\n")
    def log_message(self, *args):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Metrics)
print(server.server_port, flush=True)
server.serve_forever()
"""


class Watching(unittest.TestCase):
    def test_cpu_is_counted_although_the_counters_come_when_all_is_over(self):
        """A system that works before it tells its counters, by when the load has counted its last request."""
        folder = harness.scratch()
        busy = subprocess.Popen([sys.executable, "-c", BUSY, os.path.join(folder, "counted")], stdout=subprocess.PIPE)
        load = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        try:
            metrics = "http://127.0.0.1:%d/metrics" % int(busy.stdout.readline())
            watch = rounds.Watch(types.SimpleNamespace(pid=busy.pid, metrics=metrics), folder, False)
            open(watch.start, "w").close()
            watch.run(load)
            self.assertEqual(watch.before, {"sluice_calls_total": 7})
            self.assertGreaterEqual(sum(watch.cpu_after) - sum(watch.cpu_before), 0.25)
        finally:
            load.communicate(b"\n")
            busy.kill()
            busy.communicate()


class Gate(unittest.TestCase):
    def test_more_than_a_tenth_fails(self):
        rows = gate.judge({"read": 1000, "write": 1000}, {"read": 1099, "write": 1101})
        self.assertEqual([r[4] for r in rows], ["ok", "more"])
        self.assertFalse(gate.passes(rows))
        self.assertTrue(gate.passes(rows[:1]))

    def test_less_is_said_and_passes_and_what_is_gone_fails(self):
        rows = gate.judge({"read": 1000, "old": 5}, {"read": 800, "new": 7})
        self.assertEqual([(r[0], r[4]) for r in rows], [("new", "new"), ("old", "gone"), ("read", "less")])
        self.assertFalse(gate.passes(rows))
        self.assertTrue(gate.passes([r for r in rows if r[4] != "gone"]))

    def test_a_baseline_that_is_none_says_how_to_write_one(self):
        d = harness.scratch()
        for text in ("", "[]", "{}", '{"instructions": {}}', '{"instructions": {"read": "many"}}',
                     '{"instructions": {"read": 0}}'):
            path = os.path.join(d, "gate.json")
            with open(path, "w") as f:
                f.write(text)
            with self.assertRaisesRegex(gate.Broken, "gate.json.*--renew"):
                gate.read_baseline(path)
        with self.assertRaisesRegex(gate.Broken, "--renew"):
            gate.read_baseline(os.path.join(d, "none.json"))

    def test_the_projects_own_baseline_is_one(self):
        self.assertEqual(set(gate.read_baseline()), {kind for kinds in gate.KINDS.values() for kind in kinds})


class Engines(unittest.TestCase):
    def test_a_tuned_program_of_other_code_is_left_out(self):
        root = harness.scratch()
        tuned = os.path.join(root, "build", "tuned", "sluice")
        with unittest.mock.patch.object(rig, "ROOT", root):
            self.assertEqual(rig.Rig.engine_program("sluice"), harness.SLUICE)
            with self.assertRaisesRegex(peers.Missing, "not built: ./dev build tuned"):
                rig.Rig.engine_program("tuned")
            os.makedirs(os.path.dirname(tuned))
            with open(tuned, "w"):
                pass
            self.assertEqual(rig.Rig.engine_program("tuned"), tuned)
            os.utime(tuned, (1, 1))
            with self.assertRaisesRegex(peers.Missing, "older .* ./dev build tuned"):
                rig.Rig.engine_program("tuned")


class Peers(unittest.TestCase):
    def test_haproxy_offers_http2_where_the_engine_does(self):
        for tls, http2, offered in ((True, True, True), (True, False, False), (False, True, False)):
            case = types.SimpleNamespace(upstream={"tls": tls}, engine={"http2": http2})
            bed = types.SimpleNamespace(folder=harness.scratch(), case=case, ca="ca.pem", port=1, tls_port=2)
            with unittest.mock.patch.multiple(peers, program=str, at_port=lambda *_: None):
                peers.haproxy(bed)
            with open(os.path.join(bed.folder, "haproxy.cfg")) as f:
                server = [line for line in f if line.strip().startswith("server ")]
            self.assertEqual([" alpn h2,http/1.1" in line for line in server], [offered])


class ARun(unittest.TestCase):
    """With the engine, the upstream and the floor: what is there wherever the tests are."""

    def bench(self, *args):
        return subprocess.run([sys.executable, RUN, "--build", os.path.dirname(harness.SLUICE), *args],
                              capture_output=True, text=True, timeout=300)

    def test_a_short_run_and_a_comparison_with_itself(self):
        out = harness.scratch()
        p = self.bench("read", "--systems", "direct,floor,sluice", "--rounds", "3", "--seconds", "0.2", "--no-syscalls",
                       "--out", out)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn("noise floor", p.stdout)
        results = os.path.join(out, "results.json")
        with open(results) as f:
            data = json.load(f)
        cells = {c["system"]: c for c in data["scenarios"]["read"]["cells"]}
        self.assertEqual(set(cells), {"direct", "floor", "sluice", "floor'"})
        for name, c in cells.items():
            self.assertEqual((c["failed"], c["refused"], c["rounds"]), (0, 0, 3), name)
            self.assertGreater(c["ok"], 0)
            self.assertGreater(c["rate_ok"]["median"], 0)
        self.assertIn("RUN", [s[0] for s in cells["sluice"]["stages"]])
        with open(os.path.join(out, "report.html")) as f:
            page = f.read()
        self.assertNotRegex(page, r'(?:src|href)\s*=|@import|url\(')
        for svg in re.findall(r"<svg.*?</svg>", page, re.S):
            xml.dom.minidom.parseString(svg)
        same = self.bench("compare", results, results)
        self.assertEqual(same.returncode, 0, same.stderr)
        self.assertRegex(same.stdout, r"sluice +CPU us/call.*1\.00x  within noise")

    def test_nothing_is_left_of_a_run_that_is_ended(self):
        for number, code in ((signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)):
            bed = harness.scratch()
            p = subprocess.Popen([sys.executable, RUN, "read", "--systems", "floor,sluice", "--seconds", "77",
                                  "--build", os.path.dirname(harness.SLUICE), "--data", bed, "--out",
                                  os.path.join(bed, "out")],
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                 env=dict(os.environ, TMPDIR=bed),
                                 preexec_fn=lambda n=number: signal.signal(n, signal.SIG_DFL))
            self.addCleanup(p.kill)
            until = time.monotonic() + 60
            while "--seconds\x0077.0" not in self.commands(pids := measure.family(p.pid)):
                self.assertIsNone(p.poll(), number)
                self.assertLess(time.monotonic(), until)
                time.sleep(0.02)
            self.assertGreaterEqual(len(pids), 5)           # upstream, floor, engine, load, and itself
            p.send_signal(number)
            said = p.communicate(timeout=60)[0]
            self.assertEqual(p.returncode, code, said)
            self.assertEqual(self.commands(pids), "")
            self.assertEqual(os.listdir(bed), [], number)

    @staticmethod
    def commands(pids):
        found = []
        for pid in pids:
            try:
                with open("/proc/%d/cmdline" % pid) as f:
                    found.append(f.read())
            except OSError:
                pass
        return "\n".join(found)

    def test_what_is_not_there_is_said(self):
        p = self.bench("raed")
        self.assertEqual(p.returncode, 1)
        self.assertIn("there is no scenario raed; there are", p.stderr)
        p = self.bench("compare", "a")
        self.assertIn("compare OLD NEW", p.stderr)
        p = self.bench("compare", __file__, __file__)
        self.assertEqual(p.returncode, 1)
        self.assertIn("not a file of results", p.stderr)
        p = self.bench("read", "--systems", "apache")
        self.assertEqual(p.returncode, 2)
        self.assertIn("there is no apache", p.stderr)


if __name__ == "__main__":
    harness.main()
