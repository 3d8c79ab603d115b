"""GitHub, Slack and Gmail through a real engine against emulated providers: what the tools do, what happens when a
provider fails, and connecting accounts through OAuth. Every effect is read back through the provider's own API.
"""
import html
import os
import re
import sys
import unittest
import urllib.parse

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "script"), os.path.join(ROOT, "tests", "clients")]
import harness
from emulated import ALICE, BOB, CAROL, DAVE, ERIN, Emulated, answer, ask


# ---- what the tools do ----------------------------------------------------------------------------------------------

class Tools(Emulated):
    # ---- GitHub ----

    def test_issue_with_labels_in_any_case(self):
        r = self.call("github.create_issue",
                      {"repository": "acme/web", "title": "Broken page", "body": "It is **broken**.",
                                              "labels": ["BUG", "enhancement", "Needs Triage", "AREA/119"]})
        issue, = self.issues("Broken page")
        self.assertEqual(r["number"], issue["number"])
        self.assertEqual(r["url"], issue["html_url"])
        wanted = ["bug", "Enhancement", "needs triage", "area/119"]
        self.assertCountEqual([label["name"] for label in issue["labels"]], wanted)
        self.assertCountEqual(r["labels"], wanted)
        self.assertEqual(issue["user"]["login"], "alice")
        self.assertRegex(issue["body"], r"^It is \*\*broken\*\*\.\n\n<!-- sluice:[0-9a-z]{26} -->$")
        self.assertEqual((self.record["resource"], self.record["account"], self.record["effect"]),
                         ("Repository::acme/web", ALICE, "writes"))
        self.assertEqual(self.record["exchanges"], 4, "the repository, two pages of labels, the issue")

    def test_issue_without_labels(self):
        r = self.call("github.create_issue", {"repository": "acme/web", "title": "Plain"})
        self.assertEqual([i["number"] for i in self.issues("Plain")], [r["number"]])
        self.assertEqual(r["labels"], [])

    def test_two_spellings_of_a_label_are_one(self):
        r = self.call("github.create_issue", {"repository": "acme/web", "title": "Twice", "labels": ["bug", "Bug"]})
        self.assertEqual(r["labels"], ["bug"])

    def test_unknown_label_creates_nothing(self):
        labels = self.github("/repos/acme/web/labels?per_page=100&page=2")
        why = self.call("github.create_issue",
                        {"repository": "acme/web", "title": "Unlabelled", "labels": ["bug", "no such label"]},
                        outcome="refused", error="no_result")
        self.assertIn('"no such label"', why)
        self.assertEqual(self.issues("Unlabelled"), [])
        self.assertEqual(self.github("/repos/acme/web/labels?per_page=100&page=2"), labels)

    def test_unknown_repository(self):
        why = self.call("github.create_issue", {"repository": "acme/nothing", "title": "Nowhere"}, outcome="failed",
                        error="upstream_refused")
        self.assertIn("404", why)

    def test_repository_must_be_owner_and_name(self):
        for wrong in ("web", "acme/", "/web", "acme/web/issues"):
            before = len(self.requests())
            self.call("github.create_issue", {"repository": wrong, "title": "x"}, outcome="refused",
                      error="args_invalid")
            self.assertEqual(len(self.requests()), before)

    def test_repository_cannot_leave_its_segment(self):
        """What the caller writes stays in its place of the path."""
        for name in ("web?x=1", "web#f", "%2e%2e", "web%2Fissues"):
            self.call("github.create_issue", {"repository": "acme/" + name, "title": "x"}, outcome="failed",
                      error="upstream_refused")
            self.assertEqual(self.requests("github")[-1][1], "/repos/acme/" + urllib.parse.quote(name, safe=""))
        before = len(self.requests())
        for name in ("..", "."):
            self.call("github.create_issue", {"repository": "acme/" + name, "title": "x"}, outcome="refused",
                      error="args_invalid")
        self.assertEqual(len(self.requests()), before)

    def test_comment_and_close(self):
        number = self.new_issue("To be closed")
        r = self.call("github.comment_and_close", {"repository": "acme/web", "number": number, "comment": "Done."})
        comment, = self.comments(number)
        self.assertEqual(r, {"comment_id": comment["id"], "state": "closed"})
        self.assertTrue(comment["body"].startswith("Done.\n\n<!-- sluice:"))
        issue = self.github("/repos/acme/web/issues/%d" % number)
        self.assertEqual((issue["state"], issue["state_reason"]), ("closed", "completed"))

    def test_close_as_not_planned(self):
        number = self.new_issue("Never")
        self.call("github.comment_and_close",
                  {"repository": "acme/web", "number": number, "comment": "No.", "reason": "not_planned"})
        self.assertEqual(self.github("/repos/acme/web/issues/%d" % number)["state_reason"], "not_planned")

    def test_comment_on_nothing(self):
        self.call("github.comment_and_close", {"repository": "acme/web", "number": 99999, "comment": "?"},
                  outcome="failed", error="upstream_refused")

    def test_reviews_that_wait(self):
        r = self.call("github.list_review_requests", {"repository": "acme/web"})
        self.assertCountEqual([(p["title"], p["author"]) for p in r["pull_requests"]],
                              [("For alice", "acme"), ("For both", "acme")])
        self.assertTrue(r["complete"])
        for p in r["pull_requests"]:
            self.assertEqual(self.github("/repos/acme/web/pulls/%d" % p["number"])["html_url"], p["url"])

    # ---- Slack ----

    def test_post_to_a_channel(self):
        r = self.call("slack.post_message", {"channel": "builds", "text": "Build 7 is *green*"})
        message, = self.posts(self.channel("builds"), "Build 7 is *green*")
        self.assertEqual(r, {"channel": self.channel("builds"), "ts": message["ts"]})
        self.assertEqual((self.record["resource"], self.record["effect"]), ("Channel::builds", "writes"))

    def test_post_to_a_private_channel(self):
        self.call("slack.post_message", {"channel": "incidents", "text": "Something is wrong"})
        self.assertEqual(len(self.posts(self.channel("incidents"), "Something is wrong")), 1)

    def test_unknown_channel(self):
        self.call("slack.post_message", {"channel": "no-such", "text": "?"}, outcome="refused", error="no_result")
        self.assertNotIn("/api/chat.postMessage", [p for _, p, _ in self.requests("slack")[-1:]])

    def test_one_channel_has_one_name(self):
        """Policies compare names letter by letter: other spellings of a name go nowhere."""
        for other in ("#builds", "Builds", "BUILDS", " builds"):
            why = self.call("slack.post_message", {"channel": other, "text": "other spelling"}, outcome="refused",
                            error="args_invalid" if other[0] == "#" else "no_result")
            self.assertTrue("#" in why or other in why)
        self.assertEqual(self.posts(self.channel("builds"), "other spelling"), [])

    def test_reply_in_a_thread(self):
        parent = self.call("slack.post_message", {"channel": "builds", "text": "A question"})
        r = self.call("slack.reply_in_thread", {"channel": "builds", "thread": parent["ts"], "text": "An answer"})
        reply, = self.replies(parent["channel"], parent["ts"], "An answer")
        self.assertEqual((reply["ts"], reply["thread_ts"]), (r["ts"], parent["ts"]))
        self.assertEqual(self.posts(parent["channel"], "An answer"), [], "it is not in the channel itself")

    def test_thread_must_be_a_timestamp(self):
        self.call("slack.reply_in_thread", {"channel": "builds", "thread": "yesterday", "text": "?"},
                  outcome="refused", error="args_invalid")

    def test_message_to_a_person(self):
        r = self.call("slack.message_user", {"email": BOB, "text": "Hello Bob"})
        message, = self.posts(r["channel"], "Hello Bob")
        self.assertEqual(message["ts"], r["ts"])
        im = next(c for c in self.slack("conversations.list", types="im")["channels"] if c["id"] == r["channel"])
        found = ask(self.ports[1], "POST", "/api/users.lookupByEmail", "slack-token-of-alice", form={"email": BOB})[2]
        self.assertEqual((im["is_im"], im["user"]), (True, found["user"]["id"]))
        again = self.call("slack.message_user", {"email": BOB, "text": "Hello again"})
        self.assertEqual(again["channel"], r["channel"])

    def test_message_to_nobody(self):
        why = self.call("slack.message_user", {"email": "nobody@demo.example", "text": "?"}, outcome="refused",
                        error="no_result")
        self.assertIn("nobody@demo.example", why)

    # ---- Gmail ----

    def test_search(self):
        r = self.call("gmail.search", {"words": "from:bob report"})
        self.assertEqual([(m["id"], m["thread_id"], m["subject"], m["from"]) for m in r["messages"]],
                         [("report2", "report", "Re: Quarterly report", "Bob Builder <bob@demo.example>"),
                          ("report1", "report", "Quarterly report", "Bob Builder <bob@demo.example>")])
        self.assertIn("second half", r["messages"][0]["preview"])
        self.assertEqual(self.record["resource"], "Mailbox::" + ALICE)
        self.assertEqual(len(self.call("gmail.search", {"words": "from:bob", "count": 1})["messages"]), 1)
        self.assertEqual(self.call("gmail.search", {"words": "from:nobody-at-all"})["messages"], [])

    def test_reply_by_mail(self):
        r = self.call("gmail.reply_in_thread", {"thread_id": "report", "text": "I did, and it is fine.\nGrüße"})
        mail, = self.sent("report", "I did, and it is fine.\nGrüße")
        self.assertEqual((r["id"], r["thread_id"], r["to"]), (mail.id, "report", ["reports@demo.example"]))
        self.assertEqual((mail["To"], mail["Subject"]), ("reports@demo.example", "Re: Quarterly report"))
        self.assertEqual(mail["In-Reply-To"], "<report-2@demo.example>")
        self.assertEqual(mail["References"].split(), ["<report-1@demo.example>", "<report-2@demo.example>"])
        self.assertRegex(mail["Message-ID"], r"^<[0-9a-z]{26}@sluice\.invalid>$")
        # the newest message is alice's own now: another reply goes to whom she wrote
        again = self.call("gmail.reply_in_thread", {"thread_id": "report", "text": "One thing more."})
        self.assertEqual(again["to"], ["reports@demo.example"])
        self.assertEqual(self.sent("report", "One thing more.")[0]["In-Reply-To"], mail["Message-ID"])

    def test_reply_keeps_what_is_not_ascii(self):
        r = self.call("gmail.reply_in_thread", {"thread_id": "umlaut", "text": "Danke!"})
        mail, = self.sent("umlaut", "Danke!")
        self.assertEqual(r["to"], ["joerg@demo.example"])
        self.assertEqual(mail["Subject"],
                         "Re: Übersicht über die Größen aller Lieferungen nach Köln, Düsseldorf und Zürich "
                                          "im vergangenen Frühjahr")

    def test_long_subject_is_cut_between_characters(self):
        status, _, made = ask(self.ports[2], "POST", "/gmail/v1/users/me/messages", "google-token-of-alice",
                              {"threadId": "long", "from": BOB, "to": ALICE, "subject": "x" + "ü" * 500, "text": "?",
                               "labelIds": ["INBOX"]})
        self.assertEqual(status, 200, made)
        self.call("gmail.reply_in_thread", {"thread_id": "long", "text": "Short."})
        mail, = self.sent("long", "Short.")
        self.assertEqual(mail["Subject"], "Re: x" + "ü" * 449)

    def test_hostile_mail_adds_nothing_to_the_head(self):
        r = self.call("gmail.reply_in_thread", {"thread_id": "hostile", "text": "No."})
        mail, = self.sent("hostile", "No.")
        self.assertEqual(r["to"], ["eve@demo.example"])
        self.assertEqual(mail["To"], "eve@demo.example")
        self.assertEqual(mail["Subject"], "Re: Hello  Bcc: victim@demo.example")
        self.assertEqual(set(mail.keys()), {"To", "Subject", "Message-ID", "In-Reply-To", "References", "MIME-Version",
                                            "Content-Type", "Content-Transfer-Encoding"})

    def test_reply_to_no_thread(self):
        self.call("gmail.reply_in_thread", {"thread_id": "nothing", "text": "?"}, outcome="failed",
                  error="upstream_refused")

    # ---- who may ----

    def test_denied_calls_leave_nothing_upstream(self):
        number = self.new_issue("Stays open")
        for tool, args, agent, policy in (
                ("github.create_issue", {"repository": "acme/secret", "title": "Denied"}, "assistant",
                 "secret-repository"),
                ("slack.post_message", {"channel": "announcements", "text": "Denied"}, "assistant",
                 "announcements-are-for-people"),
                ("gmail.reply_in_thread", {"thread_id": "report", "text": "Denied"}, "reader", "reader-reads"),
                ("github.comment_and_close", {"repository": "acme/web", "number": number, "comment": "Denied"},
                 "reader", "reader-reads"),
                ("slack.message_user", {"email": BOB, "text": "Denied"}, "reader", "reader-reads"),
                ("slack.reply_in_thread", {"channel": "builds", "thread": "1.0", "text": "Denied"}, "reader",
                 "reader-reads")):
            before = len(self.requests())
            why = self.call(tool, args, agent=agent, outcome="refused", error="policy_denied")
            self.assertIn('"%s"' % policy, why)
            self.assertEqual(len(self.requests()), before, "nothing left the engine")
            denying = [d for d in self.record["decisions"] if d["effect"] == "deny"]
            self.assertTrue(denying and all(policy in d["policies"] for d in denying))
        self.assertEqual(self.issues("Denied", "acme/secret"), [])
        self.assertEqual(self.posts(self.channel("announcements"), "Denied"), [])
        self.assertEqual(self.sent("report", "Denied"), [])
        self.assertEqual(self.comments(number), [])

    def test_other_spelling_of_a_forbidden_repository(self):
        """GitHub takes names in any case; a policy that forbids one spelling must not be passed by with another."""
        self.gates["github"].fold_case = True
        try:
            why = self.call("github.create_issue", {"repository": "Acme/Secret", "title": "Denied"}, outcome="refused",
                            error="args_invalid")
        finally:
            self.gates["github"].fold_case = False
        self.assertIn("acme/secret", why)
        self.assertEqual(self.issues("Denied", "acme/secret"), [])

    def test_reading_is_not_writing(self):
        self.call("gmail.search", {"words": "from:bob"}, agent="reader")
        self.assertEqual(self.list_tools(ALICE, "reader"), {"gmail.search", "github.list_review_requests"})

    def test_without_an_account(self):
        before = len(self.requests())
        why = self.call("github.list_review_requests", {"repository": "acme/web"}, user=CAROL, outcome="refused",
                        error="account_missing")
        self.assertIn("sluice connect github", why)
        self.assertEqual(len(self.requests()), before)

    # ---- once ----

    def test_same_key_twice_is_once(self):
        number = self.new_issue("Closed once")
        for tool, args, count in (
                ("github.create_issue", {"repository": "acme/web", "title": "Once", "labels": ["BUG"]},
                 lambda: len(self.issues("Once"))),
                ("github.comment_and_close", {"repository": "acme/web", "number": number, "comment": "Once"},
                 lambda: len(self.comments(number))),
                ("slack.post_message", {"channel": "builds", "text": "Once"},
                 lambda: len(self.posts(self.channel("builds"), "Once"))),
                ("gmail.reply_in_thread", {"thread_id": "ledger", "text": "Once"},
                 lambda: len(self.sent("ledger", "Once")))):
            first = self.call(tool, args, key="key-1")
            before = len(self.requests())
            self.assertEqual(self.call(tool, args, key="key-1", replay=True), first)
            self.assertEqual(len(self.requests()), before)
            self.assertEqual(count(), 1, tool)
            self.call(tool,
                      dict(args, **{k: v + " changed" for k, v in args.items() if k in ("title", "comment", "text")}),
                      key="key-1",
                      outcome="refused", error="key_reused", replay=True)


# ---- when providers fail --------------------------------------------------------------------------------------------

class Failures(Emulated):
    def writes(self, provider, pattern):
        return [status for method, path,
                status in self.gates[provider].log if method != "GET" and re.search(pattern, path)]

    def effects(self, text):
        """Each tool that writes: its arguments, the request that does it, and how often it is found at the provider."""
        number = self.new_issue(text)
        parent = self.call("slack.post_message", {"channel": "builds", "text": "Thread of " + text})
        direct = self.call("slack.message_user", {"email": BOB, "text": "Before " + text})["channel"]
        return (("github.create_issue", {"repository": "acme/web", "title": "New " + text, "labels": ["bug"]},
                 "github", "POST", "/issues$",
                 lambda: len(self.issues("New " + text))),
                ("github.comment_and_close", {"repository": "acme/web", "number": number, "comment": text}, "github",
                 "PATCH", "/issues/%d$" % number,
                 lambda: self.github("/repos/acme/web/issues/%d" % number)["state"] == "closed"),
                ("slack.post_message", {"channel": "builds", "text": text}, "slack", "POST", "chat.postMessage",
                 lambda: len(self.posts(self.channel("builds"), text))),
                ("slack.reply_in_thread", {"channel": "builds", "thread": parent["ts"], "text": text}, "slack", "POST",
                 "chat.postMessage",
                 lambda: len(self.replies(parent["channel"], parent["ts"], text))),
                ("slack.message_user", {"email": BOB, "text": text}, "slack", "POST", "chat.postMessage",
                 lambda: len(self.posts(direct, text))),
                ("gmail.reply_in_thread", {"thread_id": "ledger", "text": text}, "gmail", "POST", "/messages/send$",
                 lambda: len(self.sent("ledger", text))))

    def test_lost_answers_are_settled_by_looking(self):
        """The effect happened and its answer was lost: it is found by its mark, told as done and not repeated."""
        for tool, args, provider, method, pattern, count in self.effects("Answer lost"):
            before = len(self.writes(provider, pattern))
            self.gates[provider].next(method, pattern, "lose answer")
            r = self.call(tool, args)
            self.assertEqual(count(), 1, tool)
            self.assertEqual(len(self.writes(provider, pattern)), before + 1, tool)
            self.assertTrue(all(r[k] for k in r), r)

    def test_lost_requests_stay_unknown(self):
        """Not found proves nothing: the outcome is unknown, and neither engine nor a repeat sends it again."""
        for tool, args, provider, method, pattern, count in self.effects("Request lost"):
            before = len(self.writes(provider, pattern))
            self.gates[provider].next(method, pattern, "lose")
            for again in (False, True):
                self.call(tool, args, key="lost", outcome="unknown", error="outcome_unknown", replay=again)
                self.assertEqual(len(self.writes(provider, pattern)), before + 1, tool)
            self.assertEqual(count(), 0, tool)

    def test_lost_reads_are_repeated(self):
        self.gates["github"].next("GET", "/labels", "lose")
        self.gates["slack"].next("POST", "conversations.list", "lose answer")
        self.gates["gmail"].next("GET", "/messages$", "lose answer")
        self.call("github.create_issue", {"repository": "acme/web", "title": "After a lost read", "labels": ["bug"]})
        self.call("slack.post_message", {"channel": "builds", "text": "After a lost read"})
        self.call("gmail.search", {"words": "report"})
        self.assertEqual(len(self.issues("After a lost read")), 1)
        self.assertEqual(len(self.posts(self.channel("builds"), "After a lost read")), 1)

    def test_half_done_is_not_called_refused(self):
        """The comment is there, closing was refused: what happened is told as unknown, never as nothing."""
        number = self.new_issue("Half")
        self.gates["github"].next("PATCH", "/issues/", "answer", answer(422, {"message": "Validation Failed"}))
        self.call("github.comment_and_close", {"repository": "acme/web", "number": number, "comment": "Half"},
                  outcome="unknown",
                  error="outcome_unknown")
        self.assertEqual(len(self.comments(number)), 1)
        self.assertEqual(self.record["effects"], 1)

    def test_limited_is_waited_for(self):
        self.gates["slack"].next("POST", "chat.postMessage", "answer",
                                 answer(429, {"ok": False, "error": "ratelimited"}, Retry_After="1"))
        self.call("slack.post_message", {"channel": "builds", "text": "Limited"})
        self.assertEqual(len(self.posts(self.channel("builds"), "Limited")), 1)
        quota = {"error": {"code": 403, "message": "Quota",
                           "errors": [{"domain": "usageLimits", "reason": "userRateLimitExceeded"}]}}
        self.gates["gmail"].next("POST", "/messages/send$", "answer", answer(403, quota))
        self.call("gmail.reply_in_thread", {"thread_id": "ledger", "text": "Limited"})
        self.assertEqual(len(self.sent("ledger", "Limited")), 1)

    def test_used_up_quota_of_github(self):
        """403 with nothing left is "come back later"; GitHub asks for a minute, which is more than a call has."""
        self.bring(DAVE, "github", "github-token-of-bob")
        self.gates["github"].next("POST", "/issues$", "answer",
                                  answer(403, {"message": "API rate limit exceeded"}, X_RateLimit_Remaining="0"))
        why = self.call("github.create_issue", {"repository": "acme/web", "title": "Quota"}, user=DAVE,
                        outcome="failed", error="upstream_limited")
        self.assertIn("API rate limit exceeded", why)
        self.assertEqual(self.issues("Quota"), [])
        self.call("github.create_issue", {"repository": "acme/web", "title": "Quota"}, user=DAVE, outcome="refused",
                  error="rate_limited")
        self.gates["github"].next("POST", "/issues$", "answer", answer(403, {"message": "Resource not accessible"}))
        why = self.call("github.create_issue", {"repository": "acme/web", "title": "Quota"}, outcome="failed",
                        error="upstream_refused")
        self.assertIn("Resource not accessible", why)

    def test_not_executed_is_sent_again_and_unknown_is_not(self):
        self.gates["github"].next("POST", "/issues$", "answer", answer(503, {}, Retry_After="1"))
        self.call("github.create_issue", {"repository": "acme/web", "title": "503"})
        self.assertEqual(len(self.issues("503")), 1)
        before = len(self.writes("github", "/issues$"))
        self.gates["github"].next("POST", "/issues$", "answer", answer(502, {}))
        self.call("github.create_issue", {"repository": "acme/web", "title": "502"}, outcome="unknown",
                  error="outcome_unknown")
        self.assertEqual(len(self.writes("github", "/issues$")), before + 1)
        self.gates["slack"].next("POST", "chat.postMessage", "answer",
                                 answer(200, {"ok": False, "error": "internal_error"}))
        self.call("slack.post_message", {"channel": "builds", "text": "internal"}, outcome="unknown",
                  error="outcome_unknown")
        self.assertEqual(self.posts(self.channel("builds"), "internal"), [])

    def test_status_200_is_not_success_at_slack(self):
        self.bring(DAVE, "slack", "slack-token-that-may-post-only")
        why = self.call("slack.message_user", {"email": ALICE, "text": "?"}, user=DAVE, outcome="failed",
                        error="upstream_refused")
        self.assertIn("missing_scope", why)

    def test_token_that_is_not_accepted(self):
        self.bring(ERIN, "github", "github-token-of-bob")
        self.gates["github"].next("GET", "/repos/acme/web$", "answer", answer(401, {"message": "Bad credentials"}))
        self.call("github.create_issue", {"repository": "acme/web", "title": "Erin"}, user=ERIN, outcome="failed",
                  error="upstream_auth")
        self.assertEqual(self.issues("Erin"), [])


# ---- connecting through OAuth ---------------------------------------------------------------------------------------

class Connecting(Emulated):
    """The browser's part is played here: ask for the page, press a user's button, follow the redirect to the engine."""

    def begin(self, provider):
        page = urllib.parse.urlsplit(self.admin(BOB, "POST", "/v1/connect",
                                                {"provider": provider, "label": BOB})["url"])
        self.assertEqual(page.port, self.engine.port, "first comes a page of the engine's")
        status, _, body = ask(page.port, "GET", page.path + "?" + page.query)
        self.assertEqual(status, 200, body)
        self.assertIn(BOB, body, "it says for whom")
        fields = {k: html.unescape(v)
                  for k, v in re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', body)}
        status, headers, _ = ask(page.port, "POST", "/connect/start", form=fields)
        headers = {k.lower(): v for k, v in dict(headers).items()}
        self.assertEqual(status, 303)
        self.cookie = headers["set-cookie"].split(";")[0]
        url = urllib.parse.urlsplit(headers["location"])
        self.assertEqual(url.port, self.gates[provider].port)
        return url

    def consent(self, provider, url):
        """Where the provider sends the browser back to."""
        status, _, page = ask(url.port, "GET", url.path + "?" + url.query)
        self.assertEqual(status, 200, page)
        for form in re.findall(r"<form.*?</form>", page, re.S):
            if "bob" in form:
                action = html.unescape(re.search(r'action="([^"]*)"', form).group(1))
                fields = {k: html.unescape(v) for k,
                          v in re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', form)}
                status, headers, _ = ask(url.port, "POST", action, form=fields)
                self.assertEqual(status, 302)
                return urllib.parse.urlsplit(headers.get("Location") or headers["location"])
        self.fail("bob has no button: " + page)

    def land(self, back):
        return self.engine.request("GET", back.path + "?" + back.query, headers={"Cookie": self.cookie})[0]

    def connect(self, provider):
        back = self.consent(provider, self.begin(provider))
        self.assertEqual(self.engine.request("GET", back.path + "?" + back.query)[0], 400,
                         "another browser has not confirmed")
        self.assertEqual(self.land(back), 200)
        account, = [a for a in self.admin(BOB, "GET", "/v1/accounts")["accounts"] if a["provider"] == provider]
        self.assertEqual((account["label"], account["status"]), (BOB, "connected"))
        self.assertEqual(self.land(back), 400, "what came back works once")
        return account

    def forget(self, account):
        return self.admin(BOB, "DELETE", "/v1/accounts/" + account["id"])["revoked_at_provider"]

    def test_github(self):
        account = self.connect("github")
        r = self.call("github.list_review_requests", {"repository": "acme/web"}, user=BOB)
        self.assertCountEqual([p["title"] for p in r["pull_requests"]], ["For bob", "For both"])
        self.forget(account)
        self.call("github.list_review_requests", {"repository": "acme/web"}, user=BOB, outcome="refused",
                  error="account_missing")

    def test_slack_asks_for_the_scopes_its_tools_need(self):
        """The emulator checks scopes: what the connector declares is enough for its tools, settling included."""
        account = self.connect("slack")
        parent = self.call("slack.post_message", {"channel": "builds", "text": "By the app"}, user=BOB)
        self.call("slack.reply_in_thread", {"channel": "builds", "thread": parent["ts"], "text": "By the app"},
                  user=BOB)
        self.gates["slack"].next("POST", "chat.postMessage", "lose answer")
        self.call("slack.message_user", {"email": ALICE, "text": "By the app"}, user=BOB)
        self.gates["slack"].next("POST", "chat.postMessage", "lose answer")
        self.call("slack.post_message", {"channel": "builds", "text": "By the app too"}, user=BOB)
        self.assertEqual(len(self.posts(self.channel("builds"), "By the app")), 1)
        self.assertEqual(len(self.posts(self.channel("builds"), "By the app too")), 1)
        self.forget(account)

    def test_gmail_refreshes_and_revokes(self):
        gate = self.gates["gmail"]
        account = self.connect("gmail")
        self.assertIn("gmail.send", account["scopes"])
        self.assertEqual([m["subject"] for m in self.call("gmail.search", {"words": "lunch"}, user=BOB)["messages"]],
                         ["A note for Bob"])
        used = set(gate.tokens)
        exchanged = [entry for entry in gate.log if entry[1] == "/oauth2/token"]
        gate.next("GET", "/messages$", "answer",
                  answer(401, {"error": {"code": 401, "message": "Invalid Credentials"}}))
        self.assertEqual(len(self.call("gmail.search", {"words": "lunch"}, user=BOB)["messages"]), 1)
        self.assertEqual(len([entry for entry in gate.log if entry[1] == "/oauth2/token"]), len(exchanged) + 1,
                         "one refresh")
        self.assertEqual(len(gate.tokens - used), 1, "with a new token")
        r = self.call("gmail.reply_in_thread", {"thread_id": "note", "text": "Yes."}, user=BOB)
        self.assertEqual([m.id for m in self.thread("note", "bob")][-1], r["id"])
        self.assertTrue(self.forget(account))
        self.assertEqual(gate.log[-1], ("POST", "/oauth2/revoke", 200))
        self.call("gmail.search", {"words": "lunch"}, user=BOB, outcome="refused", error="account_missing")

    def test_state_of_another_is_refused(self):
        before = self.admin(BOB, "GET", "/v1/accounts")
        back = self.consent("gmail", self.begin("gmail"))
        forged = re.sub(r"state=[^&]{4}", "state=AAAA", back.query)
        self.assertEqual(self.land(back._replace(query=forged)), 400)
        self.assertEqual(self.land(back._replace(query="error=access_denied&" + re.search("state=[^&]*",
                                                                                          back.query).group())), 400)
        self.assertEqual(self.admin(BOB, "GET", "/v1/accounts"), before)


def setUpModule():
    Emulated.build()
    Emulated.all_tools = Emulated.list_tools(Emulated, ALICE)


def tearDownModule():
    Emulated.tear_down()
    assert len(Emulated.all_tools) == 8, Emulated.all_tools
    assert Emulated.done == Emulated.all_tools, "not exercised: %s" % (Emulated.all_tools - Emulated.done)


if __name__ == "__main__":
    harness.main()
