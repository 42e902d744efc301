#!/usr/bin/env python3
"""Swagger UI as a person uses it: authorize, who am I, PUT, 200, DELETE, 204.

Exit status 0 where that was seen, no request went to another host, and the console stayed clean. With `--sandbox` the token comes
by a click, and the page is tried on a phone too.
"""

import argparse

from watched import browser

LOCKED = ".authorization__btn[aria-label$=' locked']"
PUT, DELETE = "#operations-shares-put_share", "#operations-shares-delete_share"


def execute(page, operation, **fields):
    """Fills in an operation that is open, executes it, and gives status and body of the answer."""
    block = page.locator(operation)
    for name, value in fields.items():
        block.locator(f"[data-param-name={name}] input").fill(value)
    block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table .response").last
    answer.wait_for()
    return answer.locator(".response-col_status").inner_text().split()[0], answer.inner_text()


def open_operation(page, operation):
    page.locator(operation).locator(".opblock-summary-control").click()


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--base-url", required=True)
    p.add_argument("--token")
    p.add_argument("--sandbox", action="store_true")
    p.add_argument("--screenshot", required=True)
    a = p.parse_args()
    with browser(a.base_url) as watched:
        context = watched.context(viewport={"width": 1200, "height": 1600})
        page = watched.page(context)
        page.goto(a.base_url + "/")
        if a.sandbox:
            page.get_by_role("button", name="Use the sharer's token").click()
            page.get_by_text("You are the sharer.").wait_for()
        else:
            page.locator(".opblock").first.wait_for()
            assert page.get_by_role("button", name="'s token").count() == 0, "a gateway in earnest offers no tokens"
            page.get_by_role("button", name="Authorize").first.click()
            page.locator(".auth-container input").fill(a.token)
            page.locator(".auth-container").get_by_role("button", name="Apply credentials").click()
            page.locator(".modal-ux").get_by_role("button", name="Close").first.click()

        first = page.locator(".opblock").first.get_attribute("id")
        assert first == "operations-identity-whoami", f"the first thing to try is {first}"
        open_operation(page, "#operations-identity-whoami")
        status, who = execute(page, "#operations-identity-whoami")
        assert status == "200" and '"subject":' in who, who

        open_operation(page, PUT)
        region = page.locator(f"{PUT} [data-param-name=region] select option").all_inner_texts()
        assert "cn-wlcb" in region, f"the regions are no list: {region}"
        status, told = execute(page, PUT, image_id="compshareImage-sandbox1", account_id="12345")
        assert status == "200" and '"shared": true' in told, f"PUT: {status}: {told}"
        snippet = page.locator(f"{PUT} .request-snippets").inner_text()
        assert "curl -X 'PUT'" in snippet and "PowerShell" in snippet, snippet
        page.screenshot(path=a.screenshot, full_page=True)

        open_operation(page, DELETE)
        status, told = execute(page, DELETE, image_id="compshareImage-sandbox1", account_id="12345")
        assert status == "204", f"DELETE: {status}: {told}"

        # The address leads to the operation, the token stays in the tab and goes with it.
        assert page.url.endswith("#/shares/delete_share"), page.url
        page.reload()
        page.locator(f"{DELETE}.is-open").wait_for()
        page.locator(LOCKED).first.wait_for()
        other = watched.page(context)
        other.goto(a.base_url + "/swagger-ui/")
        other.locator(".opblock").first.wait_for()
        assert other.locator(LOCKED).count() == 0, "another tab has the token too"
        assert page.evaluate("localStorage.length") == 0, "it outlives the tab"

        phone = watched.page(viewport={"width": 375, "height": 700})
        phone.goto(a.base_url + "/swagger-ui/#/shares/put_share")
        phone.locator(f"{PUT}.is-open").wait_for()
        phone.locator(f"{PUT} .opblock-body .execute-wrapper").wait_for()
        wide = phone.evaluate("document.documentElement.scrollWidth")
        assert wide <= 375, f"a phone has to scroll sideways: {wide}"
        execute_button = phone.locator(PUT).get_by_role("button", name="Execute").bounding_box()
        assert execute_button["x"] + execute_button["width"] <= 375, execute_button
    print("200 and 204 were seen, and no other host was asked")


if __name__ == "__main__":
    main()
