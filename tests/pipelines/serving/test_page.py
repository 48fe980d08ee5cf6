"""The page at `/`, in a real browser: photos in by every way, captions out, hostile files, every kind of user."""

import pathlib
import shutil

import pytest
from PIL import Image

from tests.support import browser
from tests.support.serving import Served, running, until

HOSTILE = "<img src=x onerror=alert(1)>&quot;\u202egpj.jpg"


@pytest.fixture(scope="module")
def chrome():
    with browser.started() as driver:
        yield driver


@pytest.fixture(scope="module")
def looking(attentive, tmp_path_factory) -> Served:
    """A service of a model with attention."""
    with running(attentive / "job/export", tmp_path_factory.mktemp("looking") / "log") as one:
        yield one


@pytest.fixture
def page(chrome, looking):
    """The page, freshly opened at a desktop's size in light colours."""
    return opened(chrome, looking)


def opened(chrome, served: Served):
    browser.set_window(chrome, 1280)
    browser.set_media(chrome, prefers_color_scheme="light", prefers_reduced_motion="reduce")
    chrome.get("about:blank")
    chrome.get_log("browser")
    chrome.get(f"http://127.0.0.1:{served.port}/")
    return chrome


def find(chrome, selector: str) -> list:
    return chrome.find_elements("css selector", selector)


def choose(page, *paths: pathlib.Path, answered: str = ".captions, .problem") -> None:
    """Chooses files, and waits until each has its answer."""
    expected = len(find(page, "figure")) + len(paths)
    find(page, "#choose")[0].send_keys("\n".join(map(str, paths)))
    until(lambda: len(find(page, answered)) == expected)


def press(chrome, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    for key in keys:
        ActionChains(chrome).send_keys(getattr(Keys, key, key)).perform()


def said(served: Served, path: pathlib.Path) -> list[str]:
    return [one["caption"] for one in served.captions(path.read_bytes()).json["images"][0]["captions"]]


def test_a_photo_is_shown_with_its_captions_and_probabilities(page, looking, photos):
    choose(page, photos[0])
    assert [one.text for one in find(page, ".text")] == said(looking, photos[0])
    assert [one.text[:4] for one in find(page, ".p")] == ["p = "] * 3
    assert find(page, ".name")[0].text == photos[0].name
    shown = page.execute_script("const i = document.images[0]; return [i.alt, i.naturalWidth]")
    assert shown == [said(looking, photos[0])[0], Image.open(photos[0]).width]
    assert find(page, "#status")[0].text == f"{photos[0].name}: {shown[0]}"
    assert page.get_log("browser") == []


def test_nothing_is_from_outside(page, looking, photos):
    choose(page, photos[0])
    names = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert names and all(name.startswith((f"http://127.0.0.1:{looking.port}/v1/", "blob:", "data:")) for name in names)
    # And could not be: the policy blocks it, which the console tells.
    page.execute_script("fetch('http://127.0.0.2:9/').catch(() => { document.title = 'blocked'; })")
    until(lambda: page.title == "blocked")
    assert any("Content Security Policy" in one["message"] for one in page.get_log("browser"))


def test_several_photos_the_last_chosen_in_their_order(page, looking, photos):
    choose(page, *photos[:3])
    assert [one.text for one in find(page, ".name")] == [path.name for path in photos[:3]]
    choose(page, photos[4])
    assert [one.text for one in find(page, ".name")] == [photos[4].name, *(path.name for path in photos[:3])]
    first = [one.text for one in find(page, ".captions li:first-child .text")]
    assert first == [said(looking, path)[0] for path in (photos[4], *photos[:3])]


# The photo's bytes as a File in a DataTransfer, as a browser has it from outside.
_TRANSFER = """
const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], arguments[1], { type: "image/jpeg" }));
"""


@pytest.mark.parametrize(
    "event",
    [
        "new ClipboardEvent('paste', { clipboardData: data, bubbles: true })",
        "new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true })",
    ],
)
def test_photos_are_pasted_and_dropped(page, looking, photos, event):
    import base64

    data = base64.b64encode(photos[1].read_bytes()).decode()
    page.execute_script(f"{_TRANSFER} document.getElementById('drop').dispatchEvent({event})", data, "pasted.jpg")
    until(lambda: find(page, ".captions"))
    assert [one.text for one in find(page, ".text")] == said(looking, photos[1])


def test_hostile_files_and_names(page, photos, tmp_path):
    named = shutil.copy(photos[0], tmp_path / HOSTILE)
    script = tmp_path / "script.svg"
    script.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" onload="parent.alert(1)"><script>alert(1)</script></svg>'
    )
    markup = tmp_path / "page.html.jpg"
    markup.write_text("<script>alert(1)</script>")
    empty = tmp_path / "empty.jpg"
    empty.touch()
    choose(page, pathlib.Path(named), script, markup, empty)
    assert find(page, ".name")[0].text == HOSTILE
    problems = [one.text for one in find(page, ".problem")]
    assert [one.partition(":")[0] for one in problems] == ["NotAnImage", "NotAnImage", "Empty"]
    assert len(find(page, "figure")) == 4 and len(find(page, ".missing")) >= 2
    assert not find(page, "script[src], iframe, object, embed, img[src='x']")
    assert page.execute_script("return document.scripts.length") == 1
    assert not [one for one in page.get_log("browser") if "alert" in one["message"]]


def test_where_the_model_looked(page, looking, photos):
    choose(page, photos[0])
    buttons = find(page, ".words button")
    answer = looking.captions(photos[0].read_bytes(), "?attention=true").json["images"][0]
    assert [one.text for one in buttons] == [one["word"] for one in answer["attention"]]
    most = max(max(one["weights"]) for one in answer["attention"])
    assert f"Full colour is {100 * most:.1f} % of its attention" in find(page, ".looks")[0].text
    buttons[1].click()
    weights = answer["attention"][1]["weights"]
    told = find(page, ".looks")[0].text
    assert told.startswith(f"{buttons[1].text}: most at the ") and f"{100 * max(weights):.1f} %" in told
    assert buttons[1].get_attribute("aria-pressed") == "true"
    # The opacity of a place is its weight over the largest of all words, and no more.
    side = int(len(weights) ** 0.5)
    canvas = (
        "const c = document.querySelector('canvas'), d = c.getContext('2d');"
        "const found = [];"
        f"for (let y = 0; y < {side}; y++) for (let x = 0; x < {side}; x++)"
        f" found.push(d.getImageData((x + .5) * c.width / {side}, (y + .5) * c.height / {side}, 1, 1).data[3] / 255);"
        "return [found, c.offsetWidth, c.offsetHeight, c.classList.contains('shown')]"
    )
    found, width, height, is_shown = page.execute_script(canvas)
    picture = find(page, ".photo img")[0]
    assert is_shown and (width, height) == (picture.size["width"], picture.size["height"])
    for seen, weight in zip(found, weights, strict=True):
        assert seen == pytest.approx(0.8 * weight / most, abs=0.06)
    press(page, "ESCAPE")
    assert buttons[1].get_attribute("aria-pressed") == "false" and not find(page, "canvas.shown")


def test_keys_alone_are_enough(page, photos):
    press(page, "TAB")
    assert page.switch_to.active_element.get_attribute("id") == "choose"
    choose(page, photos[0])
    press(page, "TAB")
    words = find(page, ".words button")
    assert page.switch_to.active_element == words[0] and find(page, "canvas.shown")
    press(page, "ARROW_RIGHT")
    assert page.switch_to.active_element == words[1]
    press(page, "ENTER", "ARROW_LEFT", "SPACE")
    assert [one.get_attribute("aria-pressed") for one in words[:2]] == ["true", "false"]


def test_what_assistive_technology_is_told(page, looking, photos):
    choose(page, photos[0])
    found = browser.accessible(page)
    best = said(looking, photos[0])[0]
    for expected in (
        ("heading", "Caption a photo"),
        ("group", "Words of the first caption"),
        ("image", best),
    ):
        assert expected in found
    assert any(name == "Choose photos" for role, name in found if role == "button")
    assert {"main", "banner", "status", "figure", "list"} <= {role for role, _ in found}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_told_apart(page, photos, tmp_path, scheme):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"bad")
    browser.set_media(page, prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    choose(page, photos[0], bad)
    find(page, ".words button")[0].click()
    found = browser.contrasts(page)
    assert {"name", "text", "p", "problem", "note"} <= set(found)
    assert min(found.values()) >= 4.5, found


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_it_fits_every_width(page, photos, tmp_path, width):
    long = shutil.copy(photos[0], tmp_path / ("x" * 200 + ".jpg"))
    browser.set_window(page, width)
    choose(page, pathlib.Path(long))
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    script = "return [...document.querySelectorAll('figure')].filter((f) => f.scrollWidth > f.clientWidth).length"
    assert page.execute_script(script) == 0


def test_a_phone_offers_its_camera(page):
    capture = find(page, "#take")[0]
    assert (capture.get_attribute("capture"), capture.get_attribute("accept")) == ("environment", "image/*")
    assert not find(page, "label.camera")[0].is_displayed()
    page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    page.execute_cdp_cmd("Emulation.setEmitTouchEventsForMouse", {"enabled": True, "configuration": "mobile"})
    try:
        until(lambda: find(page, "label.camera")[0].is_displayed())
    finally:
        page.execute_cdp_cmd("Emulation.setEmitTouchEventsForMouse", {"enabled": False})
        page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


def test_a_token_is_asked_for(chrome, trained, photos, tmp_path):
    """And by a model without attention there are no words to point at."""
    with running(trained / "job/export", tmp_path / "log", CAPTIONING_TOKEN="sesame") as served:
        page = opened(chrome, served)
        choose(page, photos[0])
        assert "expected the header" in find(page, ".problem")[0].text
        assert page.switch_to.active_element.get_attribute("id") == "token"
        press(page, "sesame", "ENTER")
        until(lambda: find(page, ".captions"))
        assert len(find(page, ".text")) == 3 and not find(page, ".words") and not find(page, ".problem")
        assert not find(page, "#token-form")[0].is_displayed()
