"""A page in headless Chromium, with all that it asked for and complained of."""

import re
import shutil
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DONE = re.compile("good|bad")


@contextmanager
def chromium():
    """A browser; the tests that want one are skipped where none is installed."""
    if CHROMIUM is None:
        pytest.skip("NO BROWSER: the pages are not tested; apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


class Visit:
    """A page that is open."""

    def __init__(self, page, origin):
        self.page = page
        self.origin = origin
        self.asked = []
        self.complaints = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._heard)

    def _heard(self, message):
        """Keep what went wrong; a browser also counts answers with 4xx and 5xx as its own errors."""
        if message.type in {"error", "warning"} and "the server responded with a status of" not in message.text:
            self.complaints.append(message.text)

    def open(self, path="/"):
        self.page.goto(self.origin + path)
        expect(self.page.locator("#request:visible, main[data-ready]")).to_be_attached()
        return self

    def run(self):
        """Press Run, and wait for the end; what was sent, and what came."""
        with self.page.expect_response("**/invocations") as found:
            self.page.get_by_role("button", name="Run").click()
        reply = found.value
        expect(self.page.locator("#status")).to_have_attribute("data-state", DONE)
        return reply.request, reply

    def answer(self):
        """Press Run, and wait for the answer: its value."""
        _, reply = self.run()
        assert reply.status == 200, reply.text()
        return reply.json()

    def code(self, language):
        """The code on the tab of a language."""
        self.page.get_by_role("tab", name=language, exact=True).click()
        return self.page.locator("#snippets pre").inner_text()

    def figures(self):
        """The numbers that are drawn, in full."""
        return [float(value) for value in self.all("#answer data", "value")]

    def all(self, selector, attribute):
        return [found.get_attribute(attribute) for found in self.page.locator(selector).all()]

    def texts(self, selector):
        return self.page.locator(selector).all_inner_texts()

    def assert_quiet(self):
        """It asked nothing of another server, broke no rule of its own, and failed nowhere."""
        assert not self.complaints, self.complaints
        foreign = [url for url in self.asked if not url.startswith((self.origin, "data:", "blob:"))]
        assert not foreign, foreign
