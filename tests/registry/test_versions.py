"""Who is champion, who was before, and that two cannot both win."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.entities.model_registry import ModelVersion

from registry.versions import champion_of, promote, reachable_registry, resolve_onnx, roll_back
from tests.registry.conftest import NAME, register_colours
from tl_core.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def champion() -> str:
    found = champion_of(NAME)
    return str(found.version) if found else ""


def test_a_version_carries_card_tags_and_run(version: ModelVersion) -> None:
    import mlflow

    found = mlflow.MlflowClient().get_model_version_by_alias(NAME, "challenger")
    assert (found.version, found.description, found.tags["accuracy"]) == (version.version, "card of version 1", "0.9")
    assert found.run_id
    assert "`@champion` is the version to use" in mlflow.MlflowClient().get_registered_model(NAME).description


def test_without_promotion_there_is_no_champion(version: ModelVersion) -> None:
    assert champion() == ""
    assert champion_of("another name") is None


def test_promotions_are_taken_back_one_by_one(version: ModelVersion, tmp_path: Path) -> None:
    second, third = register_colours(tmp_path), register_colours(tmp_path)
    assert promote(NAME, version.version, None)
    assert promote(NAME, second.version, champion_of(NAME))
    assert promote(NAME, third.version, champion_of(NAME))
    assert champion() == "3"
    assert roll_back(NAME) == ("3", "2")
    assert champion() == "2"
    assert roll_back(NAME) == ("2", "1")
    with pytest.raises(InputError, match=f"champion version 1 of {NAME} is the first"):
        roll_back(NAME)
    assert champion() == "1"


def test_the_description_says_who_is_champion_and_how_good_and_keeps_what_people_wrote(
    version: ModelVersion, tmp_path: Path
) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    first, second = "Of 100 images, about 80 are named rightly: 70 to 90.", "Of 100 images, about 90 ..."
    links = "[report](#/experiments/0/runs/1)"
    client.update_model_version(NAME, version.version, f"{first}\n\n{links}\n\n# {NAME}")
    later = register_colours(tmp_path).version
    client.update_model_version(NAME, later, f"{second}\n\n# {NAME}")
    promote(NAME, version.version, None)
    said = client.get_registered_model(NAME).description
    card = f"[Its card](#/models/{NAME}/versions/1)"
    assert said.startswith(f"**`@champion` is version 1.** {card}\n\n{first}\n\n{links}\n\n---\n\nAn image classifier.")
    client.update_registered_model(NAME, said.partition("An image")[0] + "Ask Ann.")
    promote(NAME, later, champion_of(NAME))
    expected = f"**`@champion` is version 2.** [Its card](#/models/{NAME}/versions/2)\n\n{second}\n\n---\n\nAsk Ann."
    assert client.get_registered_model(NAME).description == expected
    roll_back(NAME)
    said = client.get_registered_model(NAME).description
    assert (first in said, second in said, said.endswith("Ask Ann.")) == (True, False, True)


def test_after_a_rollback_the_next_champion_follows_the_one_restored(version: ModelVersion, tmp_path: Path) -> None:
    promote(NAME, version.version, None)
    promote(NAME, register_colours(tmp_path).version, champion_of(NAME))
    roll_back(NAME)
    promote(NAME, register_colours(tmp_path).version, champion_of(NAME))
    assert champion() == "3"
    assert roll_back(NAME) == ("3", "1")


def test_who_was_compared_with_another_champion_does_not_win(version: ModelVersion, tmp_path: Path) -> None:
    second, third = register_colours(tmp_path), register_colours(tmp_path)
    promote(NAME, version.version, None)
    compared_with = champion_of(NAME)
    assert promote(NAME, second.version, compared_with)
    assert not promote(NAME, third.version, compared_with)
    assert not promote(NAME, third.version, None)
    assert champion() == "2"


def test_a_champion_that_was_deleted_is_not_restored(version: ModelVersion, tmp_path: Path) -> None:
    import mlflow

    promote(NAME, version.version, None)
    promote(NAME, register_colours(tmp_path).version, champion_of(NAME))
    mlflow.MlflowClient().delete_model_version(NAME, "1")
    with pytest.raises(InputError, match="version 1 of colours, the champion before, is no longer there"):
        roll_back(NAME)
    assert champion() == "2"


def test_a_version_that_an_interrupted_call_has_made_is_taken_over(version: ModelVersion, tmp_path: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    interrupted = register_colours(tmp_path, export_run="e")
    assert interrupted.run_id is not None
    client.set_terminated(interrupted.run_id, "KILLED")
    client.delete_registered_model_alias(NAME, "challenger")
    assert register_colours(tmp_path, export_run="another").version != interrupted.version
    client.delete_model_version(NAME, "3")
    again = register_colours(tmp_path, export_run="e")
    assert again.version == interrupted.version
    assert client.get_model_version_by_alias(NAME, "challenger").version == interrupted.version
    client.set_terminated(interrupted.run_id, "FINISHED")
    assert int(register_colours(tmp_path, export_run="e").version) > int(interrupted.version)


def test_a_name_with_a_quote_is_a_name(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    name = "Ann's colours"
    monkeypatch.setattr("tests.registry.conftest.NAME", name)
    monkeypatch.chdir(tmp_path)
    interrupted = register_colours(tmp_path, export_run="e")
    assert interrupted.run_id is not None
    mlflow.MlflowClient().set_terminated(interrupted.run_id, "KILLED")
    assert register_colours(tmp_path, export_run="e").version == interrupted.version == 1


def test_a_version_of_a_registration_that_is_still_at_work_is_left_alone(store: str, tmp_path: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    living = register_colours(tmp_path, export_run="e")
    assert living.run_id is not None
    client.update_run(living.run_id, status="RUNNING")
    assert register_colours(tmp_path, export_run="e").version != living.version


def test_without_champion_nothing_is_rolled_back(store: str) -> None:
    with pytest.raises(InputError, match="colours has no champion"):
        roll_back(NAME)


def test_a_registry_that_is_down_is_one_sentence(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_registry_uri("http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"registry http://127.0.0.1:9 refused") as raised, reachable_registry():
        champion_of(NAME)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("uri", ["models:/colours@champion", "models:/colours/7", "models:/other/1"])
def test_a_version_that_is_not_there_is_one_sentence(uri: str, version: ModelVersion) -> None:
    with pytest.raises(InputError, match=f"no registered model {uri}"):
        resolve_onnx(uri)
