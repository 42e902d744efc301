#!/usr/bin/env python3
"""Opens addresses of the console and prints the ids of the changes that each shows, as JSON."""

import argparse
import json

from watched import browser


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--base-url", required=True)
    p.add_argument("--token", required=True)
    p.add_argument("addresses", nargs="+")
    a = p.parse_args()
    shown = []
    with browser(a.base_url) as watched:
        page = watched.page()
        page.goto(a.base_url + "/console/")
        page.get_by_label("Token").fill(a.token)
        page.get_by_role("button", name="Sign in", exact=True).click()
        page.locator("header .visitor").wait_for()
        for address in a.addresses:
            page.evaluate("address => { location.hash = address }", address)
            # Drawn anew: what the view before it showed is gone.
            page.wait_for_function("address => decodeURIComponent(location.hash) === decodeURIComponent(address)", arg=address)
            page.locator("main > .loading, main section .loading").first.wait_for(state="detached")
            page.locator("tr[data-event], .empty").first.wait_for()
            shown.append(page.eval_on_selector_all("tr[data-event]", "rows => rows.map(row => row.dataset.event)"))
    print(json.dumps(shown))


if __name__ == "__main__":
    main()
