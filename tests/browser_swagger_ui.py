#!/usr/bin/env python3
"""Opens Swagger UI in Debian's Chromium, authorizes, asks who that is, executes PUT, and waits for its 200.

Exit status 0 where that was seen, no request went to another host, and the console stayed clean.
"""
import argparse
import sys
from urllib.parse import urlsplit

from playwright.sync_api import sync_playwright

ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--disable-quic", "--disable-gpu", "--no-first-run"]


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--base-url", required=True)
    p.add_argument("--token", required=True)
    p.add_argument("--screenshot", required=True)
    p.add_argument("--chromium", default="/usr/bin/chromium")
    a = p.parse_args()
    host, foreign, console = urlsplit(a.base_url).netloc, [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=a.chromium, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1200, "height": 1600})
        page.set_default_timeout(60_000)
        page.on("request", lambda request: foreign.append(request.url)
                if not request.url.startswith("data:") and urlsplit(request.url).netloc != host else None)
        page.on("console", lambda message: console.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: console.append(str(error)))
        page.goto(a.base_url + "/")
        page.get_by_role("button", name="Authorize").first.click()
        page.locator(".auth-container input").fill(a.token)
        page.locator(".auth-container").get_by_role("button", name="Apply credentials").click()
        page.locator(".modal-ux").get_by_role("button", name="Close").first.click()
        first = page.locator(".opblock").first.get_attribute("id")
        operation = page.locator("#operations-identity-whoami")
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Execute").click()
        whoami = operation.locator(".live-responses-table .response-col_description").last
        whoami.wait_for()
        who = whoami.inner_text()
        operation = page.locator("#operations-shares-put_share")
        operation.locator(".opblock-summary-control").click()
        operation.locator("input[placeholder=image_id]").fill("compshareImage-sandbox1")
        operation.locator("input[placeholder=account_id]").fill("12345")
        operation.get_by_role("button", name="Execute").click()
        status = operation.locator(".live-responses-table .response-col_status").last
        status.wait_for()
        seen = status.inner_text().split()[0]
        body = operation.locator(".live-responses-table .response-col_description").last.inner_text()
        page.screenshot(path=a.screenshot, full_page=True)
        browser.close()
    faults = []
    if seen != "200" or '"shared": true' not in body:
        faults.append(f"the answer shown is {seen}: {body}")
    if first != "operations-identity-whoami" or '"subject":' not in who:
        faults.append(f"the first thing to try is {first}, and whoami says: {who}")
    faults += [f"a request went to {url}" for url in foreign]
    faults += [f"the console says: {text}" for text in console]
    print("\n".join(faults) or "200 was seen, and no other host was asked")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
