"""The bench's load against the bench's upstream: what they say of each other, and that no stall is left out."""
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import unittest
import urllib.error
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness

BENCH = None
REQUEST = {"path": "/x", "body": '{"jsonrpc":"2.0","id":{{n}},"k":{{r:10}}}', "headers": {"X-Id": "{{n}}"}}


class Bed(unittest.TestCase):
    def setUp(self):
        self.dir = harness.scratch()

    def upstream(self, *args):
        p = harness.Process([os.path.join(BENCH, "bench-upstream"), *args])
        self.addCleanup(p.kill)
        p.url = p.wait_line(r"listening (http://\S+)").group(1)
        return p

    def requests(self, *lines):
        path = os.path.join(self.dir, "requests")
        with open(path, "w") as f:
            f.writelines(json.dumps(line) + "\n" for line in lines or (REQUEST,))
        return path

    def load(self, url, *args, requests=None):
        p = subprocess.run([os.path.join(BENCH, "bench-load"), "--target", url, "--requests",
                            requests or self.requests(), *map(str, args)],
                           capture_output=True, text=True, timeout=60)
        self.assertEqual(p.returncode, 0, p.stderr)
        r = json.loads(p.stdout)
        self.assertEqual(r["offered"], r["sent"] + r["late"])
        self.assertEqual(r["sent"], r["ok"] + r["refused"] + r["failed"])
        self.assertEqual(sum(r["reasons"].values()), r["refused"] + r["failed"])
        self.assertEqual(sum(n for _, n in r["latency_us"]["buckets"]), r["ok"])
        self.assertEqual(sum(s["offered"] for s in r["timeline"]), r["offered"])
        return r

    def certificate(self, name, other="IP:127.0.0.1"):
        cert, key = os.path.join(self.dir, name + ".crt"), os.path.join(self.dir, name + ".key")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                        "-nodes", "-days", "2", "-subj", "/CN=" + name, "-addext", "subjectAltName=" + other,
                        "-keyout", key, "-out", cert], capture_output=True, check=True)
        return cert, key

    def stats(self, p):
        return json.load(urllib.request.urlopen(p.url + "/stats"))


class Load(Bed):
    def test_closed_loop_and_groups(self):
        up = self.upstream("--payload", "3000", "--json", os.path.join(self.dir, "up.json"))
        files = [os.path.join(self.dir, n) for n in ("started", "counted")]
        r = self.load(up.url, "--seconds", 1, "--warmup", 0.2, "--in-flight", 8, "--start-file", files[0],
                      "--counted-file", files[1], requests=self.requests(dict(REQUEST, group="one", weight=3),
                                                                         dict(REQUEST, group="two")))
        self.assertGreater(r["ok"], 100)
        self.assertEqual(r["ok"], r["sent"])
        self.assertEqual(r["ok"], r["groups"]["one"]["ok"] + r["groups"]["two"]["ok"])
        self.assertAlmostEqual(r["groups"]["one"]["ok"] / r["ok"], 0.75, delta=0.1)
        self.assertAlmostEqual(r["rate_ok"], r["answered"] / 1.0, delta=1)
        self.assertGreater(r["bytes_in"], 3000 * r["answered"])
        self.assertTrue(all(map(os.path.exists, files)))
        stats = self.stats(up)
        self.assertGreater(stats["requests"], r["ok"])          # the warm-up is not counted
        up.signal(signal.SIGTERM)
        self.assertEqual(up.wait(), 0)
        with open(os.path.join(self.dir, "up.json")) as f:
            self.assertEqual(json.load(f), stats)

    def test_count_turn_and_answers(self):
        up = self.upstream("--payload", "100", "--delay", "fixed:300000")        # so that all hundred are there at once
        lines = [dict(REQUEST, group="g%d" % i) for i in range(20)]
        answers = os.path.join(self.dir, "answers")
        r = self.load(up.url, "--count", 100, "--in-flight", 100, "--order", "turn", "--answers", answers,
                      requests=self.requests(*lines))
        self.assertEqual({g["ok"] for g in r["groups"].values()}, {5})
        self.assertEqual(self.stats(up)["at_once_max"], 100)
        with open(answers) as f:
            told = [json.loads(line) for line in f]
        self.assertEqual(sorted(t["n"] for t in told), list(range(100)))
        self.assertEqual(len(json.loads(told[0]["message"])["value"]), 1)

    def test_every_request_is_made_once_before_anything_is_counted(self):
        up = self.upstream()
        lines = [dict(REQUEST, group="g%d" % i, weight=1 if i == 7 else 0) for i in range(300)]
        for mode in (["--count", 100], ["--mode", "open", "--rate", 200, "--seconds", 0.5]):
            before = self.stats(up)["requests"]
            r = self.load(up.url, "--visit", "--in-flight", 5, *mode, requests=self.requests(*lines))
            self.assertEqual(self.stats(up)["requests"] - before, 300 + r["sent"])
            self.assertEqual((r["ok"], r["groups"]["g7"]["ok"]), (r["offered"], r["offered"]))

    def test_each_connection_its_own_request(self):
        up = self.upstream("--delay", "fixed:2000")
        r = self.load(up.url, "--seconds", 1, "--in-flight", 10, "--order", "bound",
                      requests=self.requests(*[dict(REQUEST, group="g%d" % i) for i in range(10)]))
        counts = [g["ok"] for g in r["groups"].values()]
        self.assertEqual(len(counts), 10)
        self.assertGreater(min(counts), 0.7 * max(counts))

    def test_verdicts_of_failures(self):
        up = self.upstream("--fail", "300:429:7")
        r = self.load(up.url, "--count", 1000)
        self.assertEqual(r["reasons"], {"http_429": r["refused"]})
        self.assertAlmostEqual(r["refused"], 300, delta=75)     # five deviations
        self.assertEqual(r["refused_us"]["count"], r["refused"])
        self.assertEqual(self.stats(up)["failed"], r["refused"])
        with self.assertRaises(urllib.error.HTTPError) as e:
            for _ in range(200):
                urllib.request.urlopen(up.url + "/x")
        self.assertEqual(e.exception.headers["Retry-After"], "7")

    def test_nobody_there_and_nobody_answers(self):
        p = subprocess.run([os.path.join(BENCH, "bench-load"), "--target", "http://127.0.0.1:1/x", "--requests",
                            self.requests()], capture_output=True, text=True, timeout=60)
        self.assertEqual(p.returncode, 2)
        self.assertIn("cannot connect to 127.0.0.1:1", p.stderr)
        up = self.upstream("--delay", "fixed:60000000")
        r = self.load(up.url, "--count", 5, "--in-flight", 5, "--timeout", 0.5)
        self.assertEqual(r["reasons"], {"timeout": 5})

    def test_a_wrong_line_is_named(self):
        path = os.path.join(self.dir, "wrong")
        with open(path, "w") as f:
            f.write('{"body":"x"}\n{"body":1}\n')
        p = subprocess.run([os.path.join(BENCH, "bench-load"), "--target", "http://127.0.0.1:1/x", "--requests", path],
                           capture_output=True, text=True, timeout=60)
        self.assertEqual(p.returncode, 2)
        self.assertIn("wrong, line 2: method, path, body and group are strings", p.stderr)


class OpenLoop(Bed):
    def test_latency_includes_a_stall(self):
        """The upstream stands still for a second: who was due in it has waited, whenever it was sent."""
        up = self.upstream()
        log = os.path.join(self.dir, "started")
        p = subprocess.Popen([os.path.join(BENCH, "bench-load"), "--target", up.url, "--requests", self.requests(),
                              "--mode", "open", "--rate", "500", "--arrivals", "even", "--seconds", "3",
                              "--connections", "4", "--in-flight", "2000", "--start-file", log, "--progress"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        p.stderr.readline()                     # a second of it has passed
        up.signal(signal.SIGSTOP)
        p.stderr.readline()
        up.signal(signal.SIGCONT)
        out, err = p.communicate(timeout=60)
        r = json.loads(out)
        self.assertEqual((r["late"], r["failed"]), (0, 0))
        self.assertEqual(r["ok"], r["offered"])
        self.assertAlmostEqual(r["offered"], 1500, delta=2)
        # a third of all was due in that second; their waits are spread evenly over it
        waited = sum(n for upper, n in r["latency_us"]["buckets"] if upper > 200000)
        self.assertGreater(waited, 300)
        self.assertGreater(r["latency_us"]["max"], 700000)
        self.assertAlmostEqual(statistics.mean(s["offered"] for s in r["timeline"][:3]), 500, delta=2)

    def test_too_many_in_flight_are_late(self):
        up = self.upstream("--delay", "fixed:100000")
        r = self.load(up.url, "--mode", "open", "--rate", 500, "--seconds", 1, "--in-flight", 10)
        self.assertGreater(r["late"], 100)
        self.assertLessEqual(self.stats(up)["at_once_max"], 10)

    def test_phases(self):
        up = self.upstream()
        r = self.load(up.url, "--mode", "open", "--phases", "100:1,1000:1,0:1,200:1", "--arrivals", "even",
                      "--in-flight", 2000, "--connections", 8)
        self.assertEqual(r["seconds"], 4)
        for s, rate in zip(r["timeline"], (100, 1000, 0, 200)):
            self.assertAlmostEqual(s["offered"], rate, delta=2)

    def test_refusals_are_told_of_each_phase(self):
        """A provider that refuses everything stands still in the second of three: it is those due then who wait."""
        up = self.upstream("--fail", "1000:503")
        p = subprocess.Popen([os.path.join(BENCH, "bench-load"), "--target", up.url, "--requests", self.requests(),
                              "--mode", "open", "--phases", "100:1,300:1,200:1", "--arrivals", "even", "--warmup",
                              "0.5", "--in-flight", "2000", "--connections", "600", "--progress"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        p.stderr.readline()                     # the first phase is over
        up.signal(signal.SIGSTOP)
        p.stderr.readline()
        up.signal(signal.SIGCONT)
        r = json.loads(p.communicate(timeout=60)[0])
        for phase, rate in zip(r["phases"], (100, 300, 200)):
            self.assertAlmostEqual(phase["refused"], rate, delta=2)
        self.assertEqual(sum(phase["refused"] for phase in r["phases"]), r["refused_us"]["count"])
        p50 = [phase["refused_us"]["p50"] for phase in r["phases"]]
        self.assertGreater(p50[1], 2 * max(p50[0], p50[2]))
        self.assertEqual(self.load(up.url, "--count", 5)["phases"], [])


class Upstream(Bed):
    def test_delays(self):
        up = self.upstream("--delay", "lognormal:20000:60000")
        r = self.load(up.url, "--count", 2000, "--in-flight", 500)
        self.assertGreater(r["latency_us"]["p50"], 18000)
        self.assertGreater(r["latency_us"]["p99"], 45000)
        up = self.upstream("--delay", "fixed:50000")
        self.assertGreaterEqual(self.load(up.url, "--count", 1000, "--in-flight", 200)["latency_us"]["min"], 50000)

    def test_tokens_are_never_the_same(self):
        up = self.upstream("--expires-in", "5")
        got = [json.load(urllib.request.urlopen(up.url + "/token", b"grant_type=refresh_token")) for _ in range(20)]
        self.assertEqual(len({t["access_token"] for t in got}), 20)
        self.assertEqual(len({t["refresh_token"] for t in got}), 20)
        self.assertEqual({(t["expires_in"], t["token_type"]) for t in got}, {(5, "Bearer")})
        self.assertEqual(self.stats(up)["tokens"], 20)

    def test_http2_is_spoken_to_who_begins_with_it_or_offers_it(self):
        cert, key = self.certificate("bench")
        up = self.upstream("--tls-port", "0", "--cert", cert, "--key", key)
        url = up.wait_line(r"listening (https://\S+)").group(1)
        bodies = set()
        for how, at, version in (("--http2", url, "2"), ("--http1.1", url, "1.1"), ("--no-alpn", url, "1.1"),
                                 ("--http2-prior-knowledge", up.url, "2"), ("--http1.1", up.url, "1.1")):
            p = subprocess.run(["curl", "-sS", how, "--cacert", cert, "-w", "\n%{http_version} %{http_code}",
                                at + "/x"], capture_output=True, text=True, check=True)
            body, said = p.stdout.rsplit("\n", 1)
            self.assertEqual(said, version + " 200", how)
            bodies.add(body)
        self.assertEqual(len(bodies), 1)
        self.assertEqual(self.stats(up)["requests"], 5)

    def test_payload_is_as_large_as_asked(self):
        for size in (1000, 1400, 65536, 1000000):
            up = self.upstream("--payload", str(size))
            raw = urllib.request.urlopen(up.url + "/me/messages").read()
            self.assertEqual(len(raw), size)
            self.assertIn("subject", json.loads(raw)["value"][-1])

    def test_tls(self):
        cert, key = self.certificate("bench")
        up = self.upstream("--tls-port", "0", "--cert", cert, "--key", key, "--payload", "100000")
        url = up.wait_line(r"listening (https://\S+)").group(1)
        r = self.load(url, "--ca", cert, "--seconds", 1, "--in-flight", 20)
        self.assertEqual(r["ok"], r["sent"])
        self.assertGreater(r["ok"], 20)
        stranger, _ = self.certificate("other")
        p = subprocess.run([os.path.join(BENCH, "bench-load"), "--target", url, "--requests", self.requests(), "--ca",
                            stranger], capture_output=True, text=True, timeout=60)
        self.assertEqual(p.returncode, 2)
        self.assertIn("TLS", p.stderr)


class Floor(Bed):
    def floor(self, url, *args):
        p = harness.Process([os.path.join(BENCH, "bench-floor"), "--upstream", url, *args])
        self.addCleanup(p.kill)
        p.url = p.wait_line(r"listening (http://\S+)").group(1)
        return p

    def test_each_request_is_one_exchange(self):
        up = self.upstream("--delay", "fixed:2000", "--payload", "5000")
        floor = self.floor(up.url, "--exchange", "GET /me/messages", "--bearer", "a-token")
        r = self.load(floor.url + "/mcp", "--count", 500, "--in-flight", 50)
        self.assertEqual(r["ok"], 500)
        self.assertGreater(r["bytes_in"], 500 * 5000)
        stats = self.stats(up)
        self.assertEqual(stats["requests"], 500)
        self.assertGreater(stats["at_once_max"], 25)
        floor.signal(signal.SIGTERM)
        self.assertEqual(floor.wait(), 0)

    def test_what_the_client_asked_goes_on_also_by_tls(self):
        cert, key = self.certificate("bench")
        up = self.upstream("--tls-port", "0", "--cert", cert, "--key", key)
        floor = self.floor(up.wait_line(r"listening (https://\S+)").group(1), "--ca", cert)
        token = json.load(urllib.request.urlopen(floor.url + "/token", b"grant_type=refresh_token"))
        self.assertEqual(token["token_type"], "Bearer")
        floor = self.floor("http://127.0.0.1:1")
        with self.assertRaises(urllib.error.HTTPError) as e:
            urllib.request.urlopen(floor.url + "/x")
        self.assertEqual(e.exception.code, 502)


class Governed(Bed):
    """The whole of it: a directory that was filled, an engine on it, the load before and the upstream behind it."""

    def engine(self, up, *populate, url=None, tls="{}", plain_http2=False, env=()):
        data, path = os.path.join(self.dir, "data"), os.path.join(self.dir, "sluice.yaml")
        self.tokens = os.path.join(self.dir, "tokens")
        subprocess.run([os.path.join(BENCH, "bench-populate"), "--data", data, "--tenants", "7", "--users", "300",
                        "--tokens", self.tokens, "--tokens-max", "60", "--audience", "http://bench.example/mcp",
                        *populate], check=True)
        with open(os.path.join(self.dir, "policy.cedar"), "w") as f:
            f.write("permit (principal, action, resource);")
        with open(path, "w") as f:
            f.write("""
workers: 1
connectors: [bench]
policies: ["%s/policy.cedar"]
auth: { audiences: [http://bench.example/mcp] }
tls: %s
providers:
  bench: { base_url: "%s", auth_url: "%s", client_id: bench, client_secret: env:BENCH_SECRET, allow_loopback: true,
           allow_plain_http: true, plain_http2: %s }
""" % (self.dir, tls, url or up.url, up.url, json.dumps(plain_http2)))
        engine = harness.Engine(config=path, data=data, env=dict(env, BENCH_SECRET="secret"))
        self.addCleanup(engine.stop)
        return engine

    def calls(self, tool, args):
        path = os.path.join(self.dir, tool)
        with open(self.tokens) as f, open(path, "w") as out:
            for line in f:
                tenant, _, token = line.split()
                out.write(harness.call_line(tool, args, token, group=tenant))
        return path

    def test_reads_and_writes_of_many_tenants(self):
        up = self.upstream()
        engine = self.engine(up)
        for tool, args in (("bench.read", {"count": 5}), ("bench.write", {"subject": "s", "body": "b"})):
            before = self.stats(up)["requests"]
            r = self.load(engine.url, "--count", 300, "--in-flight", 20, requests=self.calls(tool, args))
            self.assertEqual(r["ok"], 300, r["reasons"])
            self.assertEqual(len(r["groups"]), 7)
            self.assertEqual(self.stats(up)["requests"] - before, 300)
        self.assertEqual(self.stats(up)["tokens"], 0)

    def test_grants_that_have_expired_are_refreshed_once(self):
        up = self.upstream("--delay", "fixed:5000")
        engine = self.engine(up, "--expired")
        r = self.load(engine.url, "--count", 240, "--in-flight", 120, "--order", "turn",
                      requests=self.calls("bench.read", {}))
        self.assertEqual(r["ok"], 240, r["reasons"])
        self.assertEqual(self.stats(up)["tokens"], 60)

    def test_providers_are_trusted_by_whom_the_configuration_says(self):
        cert, key = self.certificate("bench", "DNS:localhost")
        up = self.upstream("--tls-port", "0", "--cert", cert, "--key", key)
        url = up.wait_line(r"listening (https://\S+)").group(1).replace("127.0.0.1", "localhost")
        for trust, outcome in (({"tls": "{ provider_ca: %s }" % cert}, {}), ({"env": {"SSL_CERT_FILE": cert}}, {}),
                               ({}, {"upstream_unwell": 1, "upstream_down": 1})):
            engine = self.engine(up, url=url, **trust)
            r = self.load(engine.url, "--count", 20, "--in-flight", 5, requests=self.calls("bench.read", {}))
            self.assertEqual(set(r["reasons"]) - set(outcome), set(), trust)
            self.assertEqual(r["ok"], 0 if outcome else 20)
            engine.stop()
        path = os.path.join(self.dir, "wrong.yaml")
        with open(path, "w") as f:
            f.write("tls: { provider_ca: %s/nowhere.pem }\n" % self.dir)
        p = harness.run("serve", "--listen", "127.0.0.1:0", "--config", path, "--data", os.path.join(self.dir, "other"),
                        check=False)
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("nowhere.pem: no certificates could be read from this file", p.stderr)

    def test_calls_of_a_tenant_share_connections_that_speak_http2(self):
        cert, key = self.certificate("bench", "DNS:localhost")
        up = self.upstream("--tls-port", "0", "--cert", cert, "--key", key, "--delay", "fixed:20000")
        url = up.wait_line(r"listening (https://\S+)").group(1).replace("127.0.0.1", "localhost")
        trust = "provider_ca: %s" % cert
        for options, least, most in (
                ({"url": url, "tls": "{ %s }" % trust}, 1, 9),          # HTTP/1.1 first, then all the others on one
                ({"url": url, "tls": "{ %s, provider_http2: false }" % trust}, 30, 60),
                ({"plain_http2": True}, 1, 1), ({}, 30, 60)):
            engine = self.engine(up, "--tenants", "1", **options)
            for tool, args in (("bench.read", {"count": 5}), ("bench.write", {"subject": "s", "body": "b"})):
                before = self.stats(up)["requests"]
                r = self.load(engine.url, "--count", 600, "--in-flight", 60, "--connections", 60,
                              requests=self.calls(tool, args))
                self.assertEqual(r["ok"], 600, r["reasons"])
                self.assertEqual(self.stats(up)["requests"] - before, 600)
            metrics = engine.request("GET", "/metrics")[2].decode()
            opened = int(re.search(r"^sluice_fetch_connects_total (\d+)$", metrics, re.M).group(1))
            self.assertGreaterEqual(opened, least, options)
            self.assertLessEqual(opened, most, options)
            engine.stop()

    def test_grants_with_a_life(self):
        up = self.upstream()
        engine = self.engine(up, "--life", "3600")
        self.assertEqual(self.load(engine.url, "--count", 60, requests=self.calls("bench.read", {}))["ok"], 60)
        self.assertEqual(self.stats(up)["tokens"], 0)


class Help(unittest.TestCase):
    def test_every_option_is_told(self):
        for name in ("bench-load", "bench-upstream", "bench-floor", "bench-populate"):
            p = subprocess.run([os.path.join(BENCH, name), "--help"], capture_output=True, text=True, check=True)
            self.assertGreater(len(re.findall(r"^  --\w", p.stdout, re.M)), 7)
            self.assertLessEqual(max(map(len, p.stdout.split("\n"))), 110)
            p = subprocess.run([os.path.join(BENCH, name), "--nothing"], capture_output=True, text=True)
            self.assertEqual(p.returncode, 2)


if __name__ == "__main__":
    BENCH = os.path.abspath(sys.argv.pop(2))
    harness.main()
