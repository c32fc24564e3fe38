"""The page of targets in headless Chromium, with masks and row filters opened.

Takes the pages' address as its argument; browser.py says what holds of every page.
"""

import sys

from browser import CHROMIUM, FLAGS, BASE, log_in, look, wrong
from playwright.sync_api import expect, sync_playwright


def run():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for user, mark in (("sam", "own-<u>tenant</u>"), ("dora", "lifted for you")):
            page = log_in(chromium, user)
            page.goto(BASE + "/targets")
            look(page, f"targets-{user}-folded")
            for summary in page.locator("details.protects > summary").all():
                summary.click()
            expect(page.locator("details.protects h3").filter(has_text=mark).first).to_be_visible()
            look(page, f"targets-{user}-masks")
        chromium.close()
    if wrong:
        sys.exit("\n".join(wrong))
    print("the page was used")


run()
