#!/usr/bin/env python3
"""The console as people use it, over a trail of many changes and an upstream that was changed by others too.

Exit status 0 where all of it was seen, no request went to another host, the console stayed clean, and axe found nothing.
"""

import argparse
import json
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from watched import browser

DAY = {"from": "2025-01-01T00:00:00Z", "to": "2025-01-02T00:00:00Z"}
ROWS = "tr[data-event]"


class Visit:
    """A visitor of the console in one context of a browser."""

    def __init__(self, watched, arguments, **options):
        self.base, self.token, self.axe = arguments.base_url + "/console/", arguments.token, arguments.axe
        self.context = watched.context(**{"viewport": {"width": 1280, "height": 900}, "locale": "en-US", **options})
        self.page = watched.page(self.context)

    def sign_in(self, at="", field="Token", button="Sign in"):
        self.page.goto(self.base + at)
        self.page.get_by_label(field).fill(self.token)
        self.page.get_by_role("button", name=button, exact=True).click()
        self.page.locator("header .visitor").wait_for()
        return self.page

    def go(self, address, wait_for):
        self.page.evaluate("address => { location.hash = address }", address)
        self.page.locator(wait_for).first.wait_for()

    def judge(self, about):
        """What axe finds, serious or not."""
        if not self.page.evaluate("typeof window.axe === 'object'"):
            self.page.evaluate(Path(self.axe).read_text())
        found = self.page.evaluate("axe.run().then(result => result.violations.map(one => [one.id, one.nodes.map(node => node.html)]))")
        assert not found, f"{about}: {json.dumps(found, indent=1)}"

    def is_narrow(self, about):
        wide = self.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= self.page.viewport_size["width"], f"{about} is {wide} wide"


def changes(**parameters):
    query = "&".join(f"{name}={quote(value)}" for name, value in parameters.items())
    return f"#/changes?{query}" if query else "#/changes"


def asked(url):
    """The parameters of an address of the console."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).fragment.partition("?")[2]).items()}


def share(arguments, image, account):
    request = urllib.request.Request(f"{arguments.base_url}/images/{image}/shares/{account}?reason=OPS-99", method="PUT",
                                     headers={"Authorization": f"Bearer {arguments.token}"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["audit_id"]


def colours(page):
    """How many pixels of the plot have the colour of each outcome."""
    return page.evaluate("""() => {
        const canvas = document.querySelector("canvas");
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        const style = getComputedStyle(document.documentElement);
        const counts = {};
        for (const word of ["succeeded", "failed", "denied", "unknown", "invalid_account"]) {
            const colour = style.getPropertyValue(`--outcome-${word}`).trim();
            const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
            counts[word] = 0;
            for (let i = 0; i < pixels.length; i += 4) {
                counts[word] += pixels[i] === r && pixels[i + 1] === g && pixels[i + 2] === b;
            }
        }
        return counts;
    }""")


def signing_in(watched, arguments):
    visit = Visit(watched, arguments)
    page = visit.page
    page.goto(visit.base)
    visit.judge("sign in")
    assert page.get_by_role("button", name="'s token").count() == 0, "a gateway in earnest offers no tokens"
    page.get_by_label("Token").fill("no token")
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_role("alert").wait_for()
    visit.judge("a refused token")
    # It is the browser that says that the answer was a 401.
    assert all("401" in fault for fault in watched.faults), watched.faults
    # What cannot be a token is not sent; what may be one is asked about once.
    before = len(watched.faults)
    page.get_by_label("Token").fill("no.such.token")
    with page.expect_response("**/whoami") as answer:
        page.get_by_role("button", name="Sign in", exact=True).click()
    assert answer.value.status == 401, answer.value.status
    page.get_by_role("alert").wait_for()
    page.wait_for_load_state("networkidle")
    told = watched.faults[before:]
    assert len(told) == 1 and "401" in told[0], told
    watched.faults.clear()
    visit.sign_in()
    kept = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.href.includes('eyJ')]")
    assert kept == [0, 0, "", False], f"the token is kept somewhere: {kept}"
    page.reload()
    page.get_by_label("Token").wait_for()


def looking(watched, arguments, screenshots):
    visit = Visit(watched, arguments, accept_downloads=True)
    page = visit.sign_in(changes(**DAY))
    page.locator("canvas").wait_for()
    page.locator(ROWS).first.wait_for()
    seen = colours(page)
    assert seen["succeeded"] > 2000 and seen["failed"] > 20 and seen["denied"] > 20, f"the plot is not drawn: {seen}"
    described = page.locator("[role=img]").get_attribute("aria-label")
    assert "succeeded" in described and "28800 in all" in described, described
    visit.judge("changes")
    page.screenshot(path=str(screenshots / "changes.png"))

    # Zoom: by drag, and by the table for whoever has no mouse.
    plot = page.locator(".u-over").bounding_box()
    page.mouse.move(plot["x"] + plot["width"] * 0.25, plot["y"] + 50)
    page.mouse.down()
    page.mouse.move(plot["x"] + plot["width"] * 0.5, plot["y"] + 60, steps=5)
    page.mouse.up()
    page.wait_for_url(lambda url: asked(url) != DAY)
    zoomed = asked(page.url)
    assert DAY["from"] < zoomed["from"] < zoomed["to"] < DAY["to"], zoomed
    page.locator(".plot summary").click()
    page.get_by_role("button", name="Zoom to").first.click()
    page.wait_for_url(lambda url: asked(url) != zoomed)

    # The picture of the documentation.
    visit.go(changes(**DAY, subject="team-001"), ROWS)
    page.locator("canvas").wait_for()
    page.get_by_text("by hour").wait_for()
    page.screenshot(path=str(screenshots / "console.png"))

    # Filters are the address, and the address is the filters.
    visit.go(changes(**DAY, outcome="denied", subject="team-001"), ROWS)
    page.locator(".badge.outcome-denied").first.wait_for()
    assert page.get_by_label("Outcome", exact=True).input_value() == "denied"
    assert page.locator(f"{ROWS} .badge:not(.outcome-denied)").count() == 0
    page.get_by_label("Outcome", exact=True).select_option("failed")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_url(lambda url: asked(url) == {**DAY, "outcome": "failed", "subject": "team-001"})
    page.locator(f"{ROWS} .badge.outcome-failed").first.wait_for()
    visit.go(changes(**DAY, subject="nobody"), ".empty")
    visit.judge("no changes")
    visit.go(changes(**DAY, account_id="no-number"), ".failure")
    assert "account_id" in page.locator(".failure").first.inner_text()
    visit.judge("a bad filter")
    assert all("400" in fault for fault in watched.faults), watched.faults
    watched.faults.clear()

    # Pages.
    visit.go(changes(**DAY), ROWS)
    page.get_by_role("link", name="Next page").wait_for()
    first = page.locator(ROWS).first.get_attribute("data-event")
    page.get_by_role("link", name="Next page").click()
    page.wait_for_url(lambda url: "cursor=" in url)
    page.get_by_role("link", name="First page").wait_for()
    assert page.locator(ROWS).count() == 50 and page.locator(ROWS).first.get_attribute("data-event") < first
    page.go_back()
    page.locator(f"tr[data-event='{first}']").wait_for()

    # CSV of what the filters leave.
    visit.go(changes(**DAY, outcome="unknown"), f"{ROWS} .outcome-unknown")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download CSV").click()
    lines = Path(saved.value.path()).read_bytes().decode("utf-8-sig").splitlines()
    assert lines[0].startswith("id,occurred_at,") and all(",unknown," in line for line in lines[1:]) and len(lines) > 10


def one_change(watched, arguments, screenshots):
    visit = Visit(watched, arguments)
    page = visit.sign_in(changes(**DAY, outcome="succeeded"))
    page.locator(f"{ROWS} a").first.click()
    page.locator(".phases li").nth(1).wait_for()
    assert page.locator(".phases li").count() == 2
    told = page.locator("main").inner_text()
    assert "Intent on disk" in told and "RetCode" in told and "main:" in told, told
    assert len(page.locator("code.hash").first.inner_text()) == 64
    page.get_by_role("heading", name="In the same call").wait_for()
    page.locator("main .loading").wait_for(state="detached")
    visit.judge("an event")
    page.screenshot(path=str(screenshots / "event.png"), full_page=True)
    page.get_by_role("link", name="All changes of this request").click()
    page.wait_for_url(lambda url: "request_id=" in url)
    page.locator(ROWS).first.wait_for()
    # Two that went in one call know of one another.
    visit.go(f"#/events/{arguments.event}", ".phases")
    page.locator(f"main section:last-child {ROWS}").first.wait_for()
    visit.go("#/events/019ab3c4-d5e6-7f00-8123-456789abcdef", ".failure")
    visit.judge("no event")
    assert all("404" in fault for fault in watched.faults), watched.faults
    watched.faults.clear()


def access(watched, arguments, screenshots):
    visit = Visit(watched, arguments)
    page = visit.sign_in("#/access")
    visit.judge("access, not asked yet")
    page.get_by_label("Image", exact=True).fill(arguments.image)
    page.get_by_role("button", name="Show").click()
    outside = page.locator(f"tr.outside[data-account='{arguments.outside}']")
    outside.wait_for()
    assert outside.locator(".origin-outside").inner_text().endswith("outside")
    assert page.locator(f"tr[data-account='{arguments.inside}'] .origin-gateway").count() == 1
    page.get_by_text("got access from outside").wait_for()
    # What somebody took away by other means.
    page.locator(".gone").get_by_text(str(arguments.gone), exact=True).wait_for()
    page.locator(f".history {ROWS}").first.wait_for()
    visit.judge("access")
    page.screenshot(path=str(screenshots / "access.png"), full_page=True)
    page.get_by_role("link", name=f"History {arguments.inside}").click()
    page.get_by_role("heading", name=f"History of account {arguments.inside}").wait_for()
    visit.go("#/images", "tbody tr")
    visit.judge("images")
    page.get_by_role("link", name=arguments.image, exact=True).click()
    page.locator("tr[data-account]").first.wait_for()


def live(watched, arguments):
    visit = Visit(watched, arguments)
    page = visit.sign_in()
    page.locator(ROWS).first.wait_for()
    page.get_by_role("button", name="Live").click()
    page.get_by_text("what is written appears here").wait_for()
    event = share(arguments, "img-live", 31)
    page.locator(f"tr.new[data-event='{event}'] .outcome-succeeded").wait_for()
    page.get_by_role("status").filter(has_text="New: share of img-live, succeeded").wait_for()
    visit.judge("live")
    page.get_by_role("button", name="Live").click()
    assert page.get_by_role("button", name="Live").get_attribute("aria-pressed") == "false"


def chinese(watched, arguments, screenshots):
    visit = Visit(watched, arguments, locale="zh-CN")
    page = visit.sign_in(changes(**DAY), field="令牌", button="登录")
    page.get_by_role("heading", name="变更", level=1).wait_for()
    page.locator(ROWS).first.wait_for()
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert "成功" in page.locator(".badge").first.inner_text() + page.locator(".legend").inner_text()
    visit.judge("changes, in Chinese")
    page.screenshot(path=str(screenshots / "chinese.png"))
    page.get_by_role("button", name="English").click()
    page.get_by_role("heading", name="Changes", level=1).wait_for()
    assert page.evaluate("document.documentElement.lang") == "en"
    page.get_by_role("button", name="中文").click()
    page.get_by_role("heading", name="变更", level=1).wait_for()


def dark(watched, arguments, screenshots):
    visit = Visit(watched, arguments, color_scheme="dark")
    page = visit.sign_in(changes(**DAY))
    page.locator(ROWS).first.wait_for()
    page.locator("canvas").wait_for()
    brightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)")
    assert brightness < 150, brightness
    assert colours(page)["succeeded"] > 2000
    page.screenshot(path=str(screenshots / "dark.png"))
    visit.judge("changes, dark")
    for address, wait_for in [(f"#/events/{arguments.event}", ".phases"), (f"#/access?image_id={arguments.image}", "tr.outside"),
                              ("#/images", "tbody tr")]:
        visit.go(address, wait_for)
        visit.judge(f"{address}, dark")


def hostile(watched, arguments, screenshots):
    """What others wrote turns nothing, hides nothing, runs nothing, and breaks no page."""
    visit = Visit(watched, arguments)
    page = visit.sign_in(changes(image_id=arguments.hostile))
    page.locator(ROWS).first.wait_for()
    shown = page.locator("td.of-subject").first.inner_text()
    assert all(part in shown for part in ("U+202E", "gnp", "U+3164", ".exe")), shown
    assert "<img src=x" in page.locator("td.of-reason").first.inner_text()
    visit.is_narrow("hostile changes")
    page.locator(f"{ROWS} a").first.click()
    page.locator(".phases").wait_for()
    visit.is_narrow("a hostile event")
    visit.judge("a hostile event")
    page.screenshot(path=str(screenshots / "hostile.png"))
    phone = Visit(watched, arguments, viewport={"width": 375, "height": 720})
    phone.sign_in(changes(image_id=arguments.hostile)).locator(ROWS).first.wait_for()
    phone.is_narrow("hostile changes on a phone")
    assert page.evaluate("window.hostile === undefined")


def others_tokens(watched, arguments):
    """Whoever may not look at the trail lands where he may, and is told so elsewhere."""
    visit = Visit(watched, arguments)
    visit.token = arguments.sharer
    page = visit.sign_in()
    page.get_by_role("heading", name="Access", level=1).wait_for()
    assert page.get_by_role("navigation").get_by_role("link", name="Changes").count() == 0
    page.get_by_label("Image", exact=True).fill(arguments.image)
    page.get_by_role("button", name="Show").click()
    page.locator("tr.outside").wait_for()
    visit.judge("access, for a sharer")
    visit.go("#/changes", ".empty")
    assert "audit:read" in page.locator(".empty").inner_text()
    for odd in ("#/events/%ZZ", "#/nonsense"):
        visit.go(odd, "h1:text-is('Not found')")
        visit.judge(odd)


def answers_that_overtake(watched, arguments):
    """An answer that comes late takes nothing back."""
    visit = Visit(watched, arguments)
    page = visit.page
    held = []
    page.goto(visit.base)
    page.route("**/whoami", lambda route: held.append(route) if len(held) == 0 else route.continue_())
    page.get_by_label("Token").fill(arguments.sharer)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_text("Signing in").wait_for()
    page.get_by_label("Token").fill(arguments.token)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.locator(ROWS).first.wait_for()
    with page.expect_response("**/whoami"):
        held[0].continue_()
    # The page has read the late answer when it has had a turn after it.
    page.evaluate("new Promise(done => setTimeout(() => requestAnimationFrame(done), 0))")
    assert page.get_by_role("navigation").get_by_role("link", name="Changes").count() == 1, "the first one took over"
    page.unroute_all()
    # One bucket alone: the plot is as wide as that, and what is dragged lies within.
    visit.go(changes(**{"from": "2025-01-01T04:00:00Z", "to": "2025-01-01T05:00:00Z"}), "canvas")
    page.get_by_text("by hour").wait_for()
    plot = page.locator(".u-over").bounding_box()
    page.mouse.move(plot["x"] + plot["width"] * 0.3, plot["y"] + 50)
    page.mouse.down()
    page.mouse.move(plot["x"] + plot["width"] * 0.6, plot["y"] + 60, steps=5)
    page.mouse.up()
    page.wait_for_url(lambda url: asked(url)["from"] > "2025-01-01T04:00:00Z")
    zoomed = asked(page.url)
    assert zoomed["from"] < zoomed["to"] < "2025-01-01T05:00:00Z", zoomed
    # A long time is counted in part, and it says so.
    visit.go(changes(**{"from": "2019-01-01T00:00:00Z"}), "canvas")
    page.get_by_text("the last 999 days").wait_for()
    page.locator(ROWS).first.wait_for()
    # What the field cannot show the address keeps.
    visit.go(changes(**{"from": "2025-01-01T01:30:00.123Z", "to": DAY["to"]}), ROWS)
    page.get_by_label("Outcome", exact=True).select_option("failed")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_url(lambda url: asked(url).get("outcome") == "failed")
    assert asked(page.url)["from"] == "2025-01-01T01:30:00.123Z", page.url


def live_over_an_outage(watched, arguments):
    """The gateway is not to be reached for a while: live mode goes on, and misses nothing."""
    visit = Visit(watched, arguments)
    page = visit.sign_in()
    page.locator(ROWS).first.wait_for()
    page.route("**/audit/entries*", lambda route: route.abort())
    page.get_by_role("button", name="Live").click()
    page.get_by_text("trying again").wait_for()
    event = share(arguments, "img-live", 32)
    page.unroute_all()
    page.locator(f"tr.new[data-event='{event}']").wait_for()
    # It is the browser that says that there was no connection.
    assert all("ERR_FAILED" in fault for fault in watched.faults), watched.faults
    watched.faults.clear()
    # Filters and languages change, and it stays on.
    page.get_by_role("button", name="中文").click()
    page.get_by_role("button", name="实时", pressed=True).wait_for()


# A feed that the test can break in the middle, as a proxy does that is restarted; `asked` is where each began.
BREAKABLE = """
const real = window.fetch;
window.asked = [];
window.fetch = async (url, options = {}) => {
  const answer = await real(url, options);
  if (!new URL(url).pathname.endsWith("/audit/entries")) return answer;
  window.asked.push(new Headers(options.headers).get("Last-Event-ID"));
  const through = new TransformStream({ start: (controller) => { window.breakOff = () => controller.error(new TypeError("cut")); } });
  answer.body.pipeTo(through.writable).catch(() => {});
  return new Response(through.readable, answer);
};
"""


def live_over_a_broken_stream(watched, arguments):
    """A stream that breaks off is gone on with behind the last row that came."""
    visit = Visit(watched, arguments)
    page = visit.page
    page.add_init_script(BREAKABLE)
    visit.sign_in()
    page.locator(ROWS).first.wait_for()
    page.get_by_role("button", name="Live").click()
    page.get_by_text("what is written appears here").wait_for()
    first = share(arguments, "img-live", 33)
    page.locator(f"tr.new[data-event='{first}'] .outcome-succeeded").wait_for()
    with page.expect_response("**/audit/entries*"):
        page.evaluate("breakOff()")
    second = share(arguments, "img-live", 34)
    page.locator(f"tr.new[data-event='{second}'] .outcome-succeeded").wait_for()
    asked = page.evaluate("asked")
    assert asked[0] is None and asked[1], f"it is not gone on with behind a row: {asked}"


def narrow(watched, arguments, screenshots):
    visit = Visit(watched, arguments, viewport={"width": 375, "height": 720}, has_touch=True)
    page = visit.sign_in(changes(**DAY))
    for address, wait_for in [(changes(**DAY), ROWS), (f"#/events/{arguments.event}", ".phases"),
                              (f"#/access?image_id={arguments.image}", "tr.outside"), ("#/images", "tbody tr")]:
        visit.go(address, wait_for)
        visit.is_narrow(address)
        visit.judge(f"{address}, narrow")
    visit.go(changes(**DAY), ROWS)
    page.screenshot(path=str(screenshots / "narrow.png"))


def keyboard_alone(watched, arguments):
    visit = Visit(watched, arguments)
    page, press = visit.page, visit.page.keyboard.press
    focused = "document.activeElement"
    page.goto(visit.base + changes(**DAY))
    page.get_by_label("Token").wait_for()
    assert page.evaluate(f"{focused}.name") == "token", "the field has the focus"
    page.keyboard.type(visit.token)
    press("Enter")
    page.locator(ROWS).first.wait_for()

    def tab_to(condition, about, key="Tab", most=80):
        for _ in range(most):
            press(key)
            if page.evaluate(f"(() => {{ const it = {focused}; return {condition}; }})()"):
                outlined = page.evaluate(f"getComputedStyle({focused}).outlineStyle")
                assert outlined != "none", f"{about} does not show that it has the focus"
                return
        raise AssertionError(f"{about} is not reached")

    assert page.evaluate(f"{focused}.id") == "main", "the view has the focus"
    tab_to("it.className === 'skip'", "the skip link", "Shift+Tab")
    press("Enter")
    assert page.evaluate(f"{focused}.id") == "main"
    tab_to("it.name === 'outcome'", "the filter of outcomes")
    press("f")
    tab_to("it.type === 'submit'", "apply")
    press("Enter")
    page.wait_for_url(lambda url: "outcome=failed" in url)
    page.locator(".outcome-failed").first.wait_for()
    tab_to("it.matches('.plot summary')", "the plot as a table")
    press("Enter")
    tab_to("it.matches('.plot details button')", "a bucket")
    before = page.url
    press("Enter")
    page.wait_for_url(lambda url: url != before)
    page.locator(ROWS).first.wait_for()
    tab_to("it.matches('tr[data-event] a')", "a change")
    press("Enter")
    page.wait_for_url(lambda url: "#/events/" in url)
    page.locator(".phases").wait_for()
    assert page.evaluate(f"{focused}.id") == "main", "a new view has the focus"


def main():
    p = argparse.ArgumentParser(description=__doc__)
    for name in ("base-url", "token", "axe", "screenshots", "image", "outside", "inside", "gone", "event",
                 "hostile", "sharer"):
        p.add_argument(f"--{name}", required=True)
    a = p.parse_args()
    screenshots = Path(a.screenshots)
    with browser(a.base_url) as watched:
        signing_in(watched, a)
        looking(watched, a, screenshots)
        one_change(watched, a, screenshots)
        access(watched, a, screenshots)
        live(watched, a)
        live_over_an_outage(watched, a)
        live_over_a_broken_stream(watched, a)
        hostile(watched, a, screenshots)
        others_tokens(watched, a)
        answers_that_overtake(watched, a)
        chinese(watched, a, screenshots)
        dark(watched, a, screenshots)
        narrow(watched, a, screenshots)
        keyboard_alone(watched, a)
    print("all of it was seen")


if __name__ == "__main__":
    main()
