"""What the service says of images: the very captions and rejects of the batch job, in every form of a request."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq

from tests.support.outputs import rows
from tests.support.serving import content, form, running


def assert_same(image: dict, row: dict) -> None:
    assert (image["height"], image["width"]) == (row["height"], row["width"])
    assert [one["caption"] for one in image["captions"]] == [one["caption"] for one in row["captions"]]
    found, expected = ([one["log_prob"] for one in each["captions"]] for each in (image, row))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_every_form_gives_the_captions_of_the_batch_job(run, served, photos):
    table = rows(run()[0])
    files = {path.name: path.read_bytes() for path in photos}
    body, kind = form(files)
    answers = [
        served.captions(body, kind=kind),
        served.captions({"images": [content(data) for data in files.values()]}),
    ]
    alone = [served.captions(data, kind="application/octet-stream").json["images"] for data in files.values()]
    for images in (*(answer.json["images"] for answer in answers), [image for (image,) in alone]):
        assert len(images) == len(table) == 8
        for path, image in zip(photos, images, strict=True):
            assert_same(image, table[path.stem])
            assert set(image) == {"height", "width", "captions"} and set(image["captions"][0]) == {
                "caption",
                "log_prob",
            }
    (digest,) = {answer.json["model"] for answer in answers}
    assert re.fullmatch("[0-9a-f]{64}", digest)
    times = answers[0].json["timing"]
    assert 0 <= times["decode_ms"] <= times["caption_ms"] and times["upload_ms"] >= 0


def test_options_are_those_of_the_command(run, served, photos):
    given = {"beam_width": 5, "captions_per_image": 2, "max_length": 7, "length_penalty": 0.0, "prefix": "a"}
    table = rows(run(**given, word_scores=True)[0])
    query = "?" + "&".join(f"{name}={value}" for name, value in {**given, "word_scores": "true"}.items())
    options = {**given, "word_scores": True}
    for path in photos[:2]:
        data, row = path.read_bytes(), table[path.stem]
        answers = [
            served.captions(data, query),
            served.captions({"images": [content(data)], "options": options}),
        ]
        for (image,) in (answer.json["images"] for answer in answers):
            assert_same(image, row)
            words = image["captions"][0]["words"]
            assert [one["word"] for one in words] == [one["word"] for one in row["captions"][0]["words"]]


def test_drawn_captions_follow_from_the_image_and_the_seed(served, photos):
    data = photos[0].read_bytes()
    one, same, other = (
        served.captions(data, f"?sample=true&captions_per_image=3&seed={seed}").json["images"] for seed in (5, 5, 6)
    )
    assert one == same != other and len(one[0]["captions"]) == 3


def test_clients_share_passes_and_each_is_answered_with_its_own(run, served, photos):
    """Two kinds of options in one batch, the same image from several clients, and bad ones between them."""
    table = rows(run(beam_width=2)[0])
    before = [served.figure(f"captioning_batch_images_{name}") for name in ("sum", "count")]

    def ask(number: int) -> None:
        if number % 7 == 3:
            assert served.captions(b"bad").json["images"][0]["error"]["error"] == "NotAnImage"
            return
        path, width = photos[number % 5], 2 if number % 2 else 1
        image = served.captions(path.read_bytes(), f"?beam_width={width}").json["images"][0]
        assert len(image["captions"]) <= width
        if width == 2:
            assert_same(image, table[path.stem])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(160)))
    images, passes = (
        served.figure(f"captioning_batch_images_{name}") - old
        for name, old in zip(("sum", "count"), before, strict=True)
    )
    assert images == 160 - 23 and passes < images / 1.5


def test_an_image_waits_for_others_to_share_its_pass(trained, photos, tmp_path):
    flags = ("--max_batch", "2", "--max_wait_ms", "10000")
    with running(trained / "job/export", tmp_path / "log", *flags) as served, ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(served.captions, [path.read_bytes() for path in photos[:2]]))
        assert [answer.status for answer in answers] == [200, 200] and answers[0].json != answers[1].json
        assert [served.figure(f"captioning_batch_images_{name}") for name in ("count", "sum")] == [1, 2]


def test_what_is_wrong_with_an_image_is_what_a_rejects_table_says(run, served, photos, tmp_path):
    bad = {"text.jpg": b"hello", "empty.jpg": b"", "short.jpg": photos[0].read_bytes()[:900]}
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    output, _ = run(images=[str(tmp_path / name) for name in bad], max_reject_fraction=1.0)
    table = pq.read_table(output / "rejects/captions.parquet").to_pylist()
    expected = {f"{row['image_id']}.jpg": {key: row[key] for key in ("stage", "error", "message")} for row in table}
    good = photos[1].read_bytes()
    body, kind = form({"good.jpg": good, **bad})
    answer = served.captions(body, kind=kind)
    first, *others = answer.json["images"]
    assert answer.status == 200 and first == served.captions(good).json["images"][0]
    assert others == [{"error": expected[name]} for name in bad]
    for name, data in bad.items():
        answer = served.captions(data)
        assert answer.status == 422 and answer.json["images"] == [{"error": expected[name]}]


def test_where_a_model_with_attention_looks_and_vertex_ais_form(run, attentive, photos, tmp_path):
    """Another service: a token, the routes and the port of Vertex AI."""
    export = attentive / "job/export"
    table = rows(run(model=str(export), attention=True)[0])
    environ = {"AIP_PREDICT_ROUTE": "/predict", "AIP_HEALTH_ROUTE": "/health", "AIP_HTTP_PORT": "1"}
    with running(export, tmp_path / "log", "--capitalise", CAPTIONING_TOKEN="sesame", **environ) as served:
        token = {"Authorization": "Bearer sesame"}
        for path in photos[:3]:
            instances = [content(path.read_bytes()), content(b"bad")]
            answer = served.ask("/predict", {"instances": instances, "parameters": {"attention": True}}, **token)
            image, bad = answer.json["predictions"]
            assert answer.status == 200 and set(answer.json) == {"predictions", "model"}
            assert bad["error"]["stage"] == "decode"
            row = table[path.stem]
            assert [one["caption"].lower() for one in image["captions"]] == [c["caption"] for c in row["captions"]]
            assert image["captions"][0]["caption"][0] == "A"
            assert [one["word"] for one in image["attention"]] == [one["word"] for one in row["attention"]]
            weights, expected = ([one["weights"] for one in each["attention"]] for each in (image, row))
            np.testing.assert_allclose(weights, expected, atol=1e-5)
            assert "attention" not in served.captions(path.read_bytes(), **token).json["images"][0]
        assert served.ask("/predict", {"instances": instances}).status == 401
        assert served.ask("/health").json == {"status": "ready"}
        document = served.ask("/openapi.json").json
        assert {"/predict", "/health", "/v1/captions"} <= set(document["paths"])


def test_the_openapi_document_is_whole(served):
    document = served.ask("/openapi.json").json
    places = re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document))
    assert {"CaptionsRequest", "CaptionsAnswer", "Image", "RefusedAnswer"} <= set(places)
    assert set(places) <= set(document["components"]["schemas"])
    post = document["paths"]["/v1/captions"]["post"]
    assert set(post["requestBody"]["content"]) == {"application/json", "image/*", "multipart/form-data"}
    named = {one["name"]: one["schema"] for one in post["parameters"]}
    assert named["beam_width"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 20}
    assert "forbid_words" not in named  # a file of the server


def test_the_page_of_the_openapi_document(served):
    """Without a script or anything from outside; each link leads to a type on the page."""
    answer = served.ask("/docs")
    page = answer.body.decode()
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<h2>POST /v1/captions</h2>" in page and "<td>beam_width<td>integer minimum 1, maximum 20<td>" in page
    links = set(re.findall(r'href="#(\w+)"', page))
    assert {"CaptionsRequest", "CaptionsAnswer", "RefusedAnswer"} <= links
    assert links <= set(re.findall(r'id="(\w+)"', page)) and not re.search("<script|src=|https?:", page)


def test_attention_of_a_model_without_is_refused(served, photos):
    answer = served.captions(photos[0].read_bytes(), "?attention=true")
    assert (answer.status, answer.code) == (422, "options")
