"""The model card: what must be said of a version, and no more than the store keeps."""

from __future__ import annotations

from dataclasses import replace

from registry.card import MAX_CHARACTERS, CardFacts, Confusions, write_card

FACTS = CardFacts(
    name="colours",
    headline="Of 100 images, about 81 are named rightly: 80 to 82.",
    links={"report": "#/experiments/0/runs/t1/artifacts/report.html", "export": "#/experiments/0/runs/e1"},
    accuracy="81.25 +- 0.61 % (n=600)",
    scored_on="episodes",
    sample="3-way 5-shot episodes of photos.zip",
    recipe={"head": "linear", "steps": "40"},
    file={
        "backbone": "resnet10",
        "weights": "b1",
        "source_fingerprint": "0123456789abcdef",
        "target_fingerprint": "",
        "image_size": "64",
    },
    runs={"fit": "f1", "finetune": "t1", "export": "e1"},
    class_names=["red", "green", "blue"],
    confusions=Confusions(
        ["red", "green", "blue"], [[0, 0, 8], [0, 1, 2], [1, 1, 10], [2, 0, 1], [2, 1, 4], [2, 2, 5]]
    ),
)


def test_it_begins_with_the_result_and_links_to_its_evidence() -> None:
    headline, links, *_ = write_card(FACTS, "7").split("\n\n")
    assert headline == FACTS.headline
    assert links == "[report](#/experiments/0/runs/t1/artifacts/report.html) | [export](#/experiments/0/runs/e1)"


def test_it_says_how_good_and_how_sure() -> None:
    assert "Accuracy 81.25 +- 0.61 % (n=600), 95 % interval" in write_card(FACTS, "7")
    assert "3-way 5-shot episodes of photos.zip" in write_card(FACTS, "7")


def test_of_what_the_number_speaks_depends_on_what_was_scored() -> None:
    assert "on 3-way 5-shot episodes of photos.zip. The classifier itself was fitted to all" in write_card(FACTS, "7")
    assert "other draws of the same images" in write_card(FACTS, "7")
    card = write_card(replace(FACTS, scored_on="test images", sample="the test images of photos.zip"), "7")
    assert "of this classifier on the test images of photos.zip. They chose nothing" in card
    assert "other images drawn as these were" in card


def test_it_names_the_confusions_by_the_share_of_their_class() -> None:
    expected = "Most often confused: blue taken for green 40.0%; red taken for green 20.0%; blue taken for red 10.0%."
    assert expected in write_card(FACTS, "7")


def test_without_confusions_none_are_made_up() -> None:
    assert "confused" not in write_card(replace(FACTS, confusions=None), "7")
    perfect = Confusions(["red", "green"], [[0, 0, 3], [1, 1, 3]])
    assert "No class was taken for another." in write_card(replace(FACTS, confusions=perfect), "7")


def test_it_is_used_by_its_number() -> None:
    """Whichever version is the champion."""
    assert 'load_model("models:/colours/7")' in write_card(FACTS, "7")


def test_names_are_no_markup() -> None:
    card = write_card(replace(FACTS, headline="Of data *x*", class_names=["<i>owl", "[cat](evil)", "snake_case"]), "7")
    assert card.startswith(r"Of data \*x\*")
    assert r"\<i\>owl, \[cat\](evil), snake_case." in card


def test_it_says_where_it_came_from() -> None:
    card = write_card(FACTS, "7")
    for part in ("resnet10", "b1", "0123456789ab", "f1", "t1", "e1", "not recorded", "head linear, steps 40"):
        assert part in card


def test_it_says_what_the_threshold_does_where_there_is_one() -> None:
    card = write_card(replace(FACTS, file={**FACTS.file, "unlike_below": "0.81234"}), "7")
    assert "similarity to the nearest class is below 0.812 are marked `unlike`" in card
    assert "about 5% of the pictures of these classes" in card
    assert "unlike`" not in write_card(FACTS, "7")


def test_many_classes_are_counted_and_the_card_fits_the_store() -> None:
    names = [f"class number {index}" for index in range(1000)]
    counts = [[true, answer, 1] for true in range(1000) for answer in range(0, 1000, 10)]
    card = write_card(replace(FACTS, class_names=names, confusions=Confusions(names, counts)), "7")
    assert "\n\n# colours\n\n1000 classes: class number 0, " in card
    assert "and 970 more" in card
    assert "How to use" in card
    assert len(card) <= MAX_CHARACTERS
