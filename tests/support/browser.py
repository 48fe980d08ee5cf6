"""A headless Chromium for tests of web pages, and what they ask it."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)


def _give_up(reason: str) -> None:
    """Skips the test; fails it where CI_BROWSER=1 says that there must be a browser."""
    (pytest.fail if os.environ.get("CI_BROWSER") == "1" else pytest.skip)(reason)


@contextlib.contextmanager
def started() -> Iterator:
    """A selenium driver of a new Chromium, whose console is kept. Nothing is downloaded."""
    try:
        from selenium import webdriver
    except ImportError:
        _give_up("selenium is not installed")
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not (browser and driver):
        _give_up(f"no {' or '.join(_BROWSERS)} with a chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
        try:
            yield chrome
        finally:
            chrome.quit()


def set_window(chrome, width: int, height: int = 900) -> None:
    """The size of the page in CSS pixels, whatever the window's frame; narrower than a desktop's window can be."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def set_media(chrome, **features: str) -> None:
    """Media features, such as prefers_color_scheme="dark"; none to be as at the start."""
    given = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": given})


def accessible(chrome) -> list[tuple[str, str]]:
    """(role, name) of everything in Chromium's accessibility tree, in its order."""
    nodes = chrome.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    kept = [node for node in nodes if not node.get("ignored")]
    return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in kept]


# Contrast of all text on the page: WCAG 2.2, 1.4.3, https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio.
CONTRASTS = """
const parts = (colour) => { const c = colour.match(/[\\d.]+/g).map(Number); return c.length === 3 ? [...c, 1] : c; };
const light = (c) => c.slice(0, 3).map((v) => v / 255)
  .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || element.matches("script, style") || !element.checkVisibility()) continue;
  let ground = element;
  while (parts(getComputedStyle(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
  const [a, b] = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor].map(parts).map(light);
  found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.className || element.tagName]);
}
return found;
"""


def contrasts(chrome) -> dict[str, float]:
    """The least contrast ratio of the text of each class (or tag) that is on the page, by computed styles."""
    least: dict[str, float] = {}
    for ratio, name in chrome.execute_script(CONTRASTS):
        least[name] = min(ratio, least.get(name, 99.0))
    return least
