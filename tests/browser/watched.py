"""A page of Debian's Chromium that is watched: what it asks of whom, and what its console says."""

import contextlib
from urllib.parse import urlsplit

from playwright.sync_api import sync_playwright

ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--disable-quic", "--disable-gpu", "--no-first-run"]
PATIENCE_MS = 30_000
# Swagger UI takes the underscores of operations in its own addresses for spaces, finds the operation all the same, and says so.
HARMLESS = "escaping deep link whitespace"


class Browser:
    """Opens pages; after the last, `faults` says what went wrong beside what a test looks at."""

    def __init__(self, browser, base_url):
        self.base_url, self.faults = base_url, []
        self._browser, self._host = browser, urlsplit(base_url).netloc

    def context(self, **options):
        context = self._browser.new_context(**options)
        context.set_default_timeout(PATIENCE_MS)
        return context

    def page(self, context=None, **options):
        page = (context or self.context(**options)).new_page()
        page.on("request", lambda request: self._look_at(request.url))
        page.on("console", lambda message: message.type in ("error", "warning") and HARMLESS not in message.text
                and self.faults.append(f"the console says: {message.text}"))
        page.on("pageerror", lambda error: self.faults.append(f"an error: {error}"))
        return page

    def _look_at(self, url):
        if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != self._host:
            self.faults.append(f"a request went to {url}")


@contextlib.contextmanager
def browser(base_url, chromium="/usr/bin/chromium"):
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        watched = Browser(started, base_url)
        yield watched
        started.close()
    assert not watched.faults, "\n".join(watched.faults)
