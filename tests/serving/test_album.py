"""The album as a page: what it holds, what it never asks for, and the labels that a browser saves from it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from serving import album
from serving.album import Album, LeastSure, write_page
from serving.answers import Answer
from serving.sources import ImageFile, open_source
from serving.tables import Prediction
from tests.conftest import write_colour_images
from tests.serving.conftest import CLASS_NAMES
from tests.serving.test_sources import as_zip
from tl_core.data.dataset import load_dataset

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = (
    "</script><b>.png",
    'say "a", b.png',
    "größe 図.png",
    "#1?x=%41.png",
    "a;b\tc.png",
    " spaced .png",
    "back\\s.png",
)
SCRIPT = """
<script>
async function act() {
  const key = (key) => document.activeElement.dispatchEvent(
    new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
  const saved = new Promise((resolve) => {
    URL.createObjectURL = (blob) => { resolve(blob.text()); return "blob:none"; };
  });
  const count = () => document.querySelectorAll(".card").length;
  const choose = (id, value) => {
    document.getElementById(id).value = value;
    for (const name of ["input", "change"]) document.getElementById(id).dispatchEvent(new Event(name));
  };
  const result = {title: document.getElementById("title").textContent, cards: count()};
  result.act = await (async () => { ACTIONS })();
  document.getElementById("save").click();
  result.csv = await saved;
  result.status = document.getElementById("status").textContent;
  result.broken = [...document.images].filter((image) => !image.complete || image.naturalWidth === 0).length;
  document.body.replaceChildren(document.createTextNode("RESULT" + encodeURIComponent(JSON.stringify(result)) + "END"));
}
window.addEventListener("load", act);
</script>
"""

in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


def answers_of(files: Sequence[ImageFile], probabilities: Sequence[float], unlike: bool | None) -> list[Answer]:
    """Images, each predicted as red, with these probabilities in turn."""
    answers = []
    for position, file in enumerate(files):
        probability = probabilities[position % len(probabilities)]
        top = (("red", probability), ("blue", 0.75 * (1 - probability)), ("green", 0.25 * (1 - probability)))
        answers.append(Answer(Prediction(file.name, "red", top, unlike=unlike), file, ""))
    return answers


def written(
    spec: Path | str,
    folder: Path,
    class_names: Sequence[str] = CLASS_NAMES,
    probabilities: Sequence[float] = (0.9,),
    unlike: bool | None = None,
) -> Path:
    """Write the page of a source; returns it."""
    kept = LeastSure()
    folder.mkdir(exist_ok=True)
    with open_source(str(spec)) as source:
        for answer in answers_of(list(source.files()), probabilities, unlike):
            kept.add(answer)
        write_page(Album(source.root, class_names, source.count, kept.list()), folder)
    return folder / "index.html"


def data_of(path: Path) -> dict[str, Any]:
    """What a page holds."""
    (text,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"), re.DOTALL
    )
    return dict(json.loads(text))


def act(path: Path, actions: str, folder: Path) -> dict[str, Any]:
    """Open a page in a browser, do what a script says, and save; returns what was seen."""
    acted = path.with_name("acted.html")
    acted.write_text(
        path.read_text("utf-8").replace("</body>", SCRIPT.replace("ACTIONS", actions) + "</body>"), "utf-8"
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command = [str(CHROMIUM), *options, "--virtual-time-budget=20000", "--dump-dom", acted.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    found = re.search("RESULT(.*?)END", done.stdout)
    assert found, done.stdout[-500:] + done.stderr[-500:]
    return dict(json.loads(unquote(unescape(found[1]))))


def hostile_images(folder: Path) -> Path:
    (folder / "<").mkdir(parents=True)  # with the name in it, it would end a script
    for position, name in enumerate(HOSTILE):
        Image.new("RGB", (20, 30), (40 * position, 90, 10)).save(folder / name, "PNG")
    Image.new("RGB", (20, 30), "red").save(folder / "plain.png")
    return folder


def test_the_least_sure_images_come_first_and_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(album, "MAX_ON_PAGE", 3)
    kept = LeastSure()
    probabilities = np.random.default_rng(0).permutation(50) / 50
    for number, probability in enumerate(probabilities):
        file = ImageFile(f"{number}.png", str, bytes)
        kept.add(Answer(Prediction(file.name, "red", (("red", float(probability)),)), file, ""))
    assert [answer.probability for answer in kept.list()] == [0.0, 0.02, 0.04]


def test_a_page_asks_no_other_host_for_anything(pictures: Path, tmp_path: Path) -> None:
    text = written(pictures, tmp_path / "album").read_text("utf-8")
    assert "://" not in text
    assert "default-src 'none'" in text
    assert not re.search(r"\b(innerHTML|fetch|import|eval|document\.write)\b", text)


def test_names_do_not_end_the_script_that_they_are_in(tmp_path: Path) -> None:
    photos = hostile_images(tmp_path / "photos")
    path = written(photos, tmp_path / "album", ["red", "green", "blue", "</script><script>alert(1)</script>"])
    assert path.read_text("utf-8").count("</script>") == 2
    data = data_of(path)
    assert {image["name"] for image in data["images"]} == {*HOSTILE, "plain.png"}
    assert all((path.parent / unquote(image["link"])).is_file() for image in data["images"])


def test_a_thumbnail_is_small_and_those_of_an_earlier_album_are_gone(pictures: Path, tmp_path: Path) -> None:
    written(pictures, tmp_path / "album")
    shutil.rmtree(pictures / "blue")
    Image.new("RGB", (3000, 2000), "green").save(pictures / "green" / "large.png")
    written(pictures, tmp_path / "album")
    found = sorted((tmp_path / "album" / "thumbnails").iterdir())
    assert [path.name for path in found] == [f"{number:05d}.jpg" for number in range(9)]
    with Image.open(found[4]) as thumbnail:
        assert thumbnail.size == (192, 192)


def test_an_image_of_an_archive_has_a_thumbnail_and_no_link(pictures: Path, tmp_path: Path) -> None:
    data = data_of(written(as_zip(pictures, tmp_path), tmp_path / "album"))
    assert data["archive"] is True
    assert data["images"][0] == {
        "name": "blue/000.png",
        "link": "",
        "top": [[0, 0.9], [2, pytest.approx(0.075)], [1, pytest.approx(0.025)]],
        "named": True,
        "unlike": None,
        "label": -1,
    }
    assert len(list((tmp_path / "album" / "thumbnails").iterdir())) == 12


def test_paths_count_from_the_folder_that_all_images_of_a_glob_lie_in(pictures: Path, tmp_path: Path) -> None:
    data = data_of(written(f"{pictures}/*/*.png", tmp_path / "album"))
    assert data["folder"] == str(pictures)
    assert data["images"][0]["name"] == "blue/000.png"


@in_a_browser
def test_labels_saved_by_mouse_and_keyboard_are_a_data_set(pictures: Path, tmp_path: Path) -> None:
    path = written(pictures, tmp_path / "album", probabilities=(0.9, 0.5, 0.7))
    seen = act(
        path,
        """
        const cards = document.querySelectorAll(".card");
        cards[0].querySelectorAll(".choice")[1].click();  // the second class, blue
        cards[1].focus(); key("Enter");  // confirmed, and on to the third
        key("2"); key("ArrowRight");
        key("1"); key("ArrowLeft"); key("Backspace");  // taken back
        cards[6].focus(); key("o");
        choose("search", "GRE");
        document.querySelector("#found button").click();
        choose("state", "done");
        const names = [...document.querySelectorAll(".card")].map((card) => card.getAttribute("aria-label"));
        choose("state", "");
        choose("probability", 60);
        const visible = ["unlike-label", "folder-label"].filter((id) => document.getElementById(id).checkVisibility());
        return {names, sure: count(), visible};
        """,
        tmp_path,
    )
    assert (seen["title"], seen["cards"], seen["broken"]) == ("12 images, least sure first", 12, 0)
    assert (seen["act"]["sure"], seen["act"]["visible"]) == (4, [])
    assert seen["act"]["names"][0] == "blue/001.png: predicted red, 50 %, labelled blue"
    assert f"Move corrections.csv from your downloads to {pictures}" in seen["status"]
    assert f"--data my_folder,{pictures / 'corrections.csv'}" in seen["status"]
    table = pictures / "corrections.csv"
    table.write_text(seen["csv"], "utf-8", newline="")
    dataset = load_dataset(str(table), 16, unreadable="refuse")
    labels = {name: dataset.class_names[label] for name, label in zip(dataset.file_names, dataset.labels, strict=True)}
    assert labels == {"blue/001.png": "blue", "green/000.png": "red", "green/003.png": "blue", "red/000.png": "green"}


@in_a_browser
def test_any_name_of_a_file_or_a_class_survives_the_page_and_the_table(tmp_path: Path) -> None:
    photos = hostile_images(tmp_path / "photos")
    classes = ["red", 'say "x", <b>', "blue"]
    path = written(photos, tmp_path / "album", [*classes, "green"])
    actions = """
        const cards = document.querySelectorAll(".card");
        cards.forEach((card, position) => {
          card.focus(); key("o");
          document.querySelectorAll("#found button")[position % 3].click();
        });
    """
    seen = act(path, actions, tmp_path)
    assert seen["broken"] == 0
    (photos / "corrections.csv").write_text(seen["csv"], "utf-8", newline="")
    dataset = load_dataset(str(photos / "corrections.csv"), 16, unreadable="refuse")
    assert set(dataset.file_names) == {*HOSTILE, "plain.png"}
    assert set(dataset.class_names) == set(classes)


@in_a_browser
def test_many_images_are_not_all_on_the_page_at_once(tmp_path: Path) -> None:
    photos = write_colour_images(tmp_path / "photos", n_per_class=40)
    path = written(photos, tmp_path / "album", unlike=True)
    seen = act(
        path,
        """
        document.getElementById("next").click();
        const second = count();
        document.querySelectorAll(".card")[0].focus(); key("PageDown"); key("Enter");
        const last = count();
        choose("unlike", "false");
        return {second, last, none: count(), visible: document.getElementById("unlike-label").checkVisibility()};
        """,
        tmp_path,
    )
    assert seen["cards"] == 48
    assert seen["act"] == {"second": 48, "last": 24, "none": 0, "visible": True}
    assert len(seen["csv"].splitlines()) == 2
