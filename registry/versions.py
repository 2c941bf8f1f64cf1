"""Versions of a registered model: `@challenger` is the newest, `@champion` the trusted one.

MLflow's aliases keep no history. Each champion therefore remembers, in a tag, which version it followed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from registry import saving
from tl_core.errors import InputError

CHAMPION, CHALLENGER = "champion", "challenger"
_ABOUT = (
    f"An image classifier. `@{CHAMPION}` is the version to use, `@{CHALLENGER}` the newest one; a gate lets it become "
    "champion only if it is not worse, as its reason says. Each version's description is its card."
)

FOLLOWED = "followed"
"""Tag of a champion: the version that was champion before it; empty if there was none."""

_SAYS_CHAMPION = f"**`@{CHAMPION}` is version "
_RULE = "\n\n---\n\n"
"""What a description says of the champion begins with the one and ends in the other; what follows is its users'."""

_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@dataclass(frozen=True)
class NewVersion:
    """Parts of a version: the file, its card, which takes the number of the version, and its evidence."""

    onnx_path: Path
    card: Callable[[str], str]
    tags: Mapping[str, str]


@contextmanager
def reachable_registry() -> Iterator[None]:
    """Turn any trouble with the registry into one sentence: what could not be asked was not promoted."""
    try:
        yield
    except MlflowException as error:
        reason = " ".join(str(error.message).split())[:300]
        raise InputError(f"the registry {mlflow.get_registry_uri()} refused or did not answer ({reason})") from error


def champion_of(name: str) -> ModelVersion | None:
    """The champion, or None if the model is not registered or has none; any other trouble is raised."""
    try:
        return mlflow.MlflowClient().get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code in _ABSENT:
            return None
        raise


def register_challenger(name: str, new: NewVersion) -> ModelVersion:
    """Log the .onnx file as an MLflow model of the active run and register it as `@challenger`.

    A version that an interrupted call has made of the same evidence is taken over instead.

    Raises:
        InputError: MLflow does not accept the name.
    """
    version = _unfinished_version(name, new.tags)
    if version is None:
        info = Model.log(artifact_path=None, name="classifier", flavor=saving, onnx_path=new.onnx_path)
        version = create_version(name, info.model_uri, "", new.tags, _ABOUT)
    client = mlflow.MlflowClient()
    described = client.update_model_version(name, version.version, new.card(str(version.version)))
    client.set_registered_model_alias(name, CHALLENGER, version.version)
    return described


def _unfinished_version(name: str, tags: Mapping[str, str]) -> ModelVersion | None:
    """The newest version, if it has these tags and the run that made it did not live to decide on it."""
    client = mlflow.MlflowClient()
    wanted = f"name = {json.dumps(name)}"  # in quotes that the name cannot end
    newest = next(iter(client.search_model_versions(wanted, 1, ["version_number DESC"])), None)
    if newest is None or not tags or not tags.items() <= newest.tags.items():
        return None
    return newest if client.get_run(newest.run_id or "").info.status in ("KILLED", "FAILED") else None


def champions_until(version: ModelVersion | None) -> list[ModelVersion]:
    """List a champion and those before it, the newest first; ends at the first one, or before one that was deleted."""
    chain: list[ModelVersion] = []
    while version is not None and _number(version) not in map(_number, chain):
        chain.append(version)
        try:
            version = predecessor_of(version)
        except MlflowException as error:
            if error.error_code not in _ABSENT:
                raise
            version = None
    return chain


def predecessor_of(version: ModelVersion) -> ModelVersion | None:
    """The champion that a champion followed, or None if it was the first."""
    followed = version.tags.get(FOLLOWED, "")
    return mlflow.MlflowClient().get_model_version(version.name, followed) if followed else None


def create_version(name: str, source: str, description: str, tags: Mapping[str, str], about: str = "") -> ModelVersion:
    """Make what lies at a URI the newest version of a registered model, with the active run as its origin.

    Args:
        about: what is said of the model as a whole, where this is its first version.

    Raises:
        InputError: MLflow does not accept the name.
    """
    client = mlflow.MlflowClient()
    try:
        client.create_registered_model(name, description=about)
    except MlflowException as error:
        if error.error_code == "INVALID_PARAMETER_VALUE":
            raise InputError(f"no model can be registered as {name!r} ({error.message})") from error
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    run = mlflow.active_run()
    assert run is not None
    return client.create_model_version(name, source, run_id=run.info.run_id, description=description, tags=dict(tags))


def promote(name: str, version: str, champion: ModelVersion | None) -> bool:
    """Make a version the champion, unless the champion is no longer the one that it was compared with.

    Returns:
        Whether it is the champion now.
    """
    client = mlflow.MlflowClient()
    if _number(champion_of(name)) != _number(champion):
        return False
    client.set_model_version_tag(name, version, FOLLOWED, _number(champion))
    client.set_registered_model_alias(name, CHAMPION, version)
    describe_champion(name)
    return _number(champion_of(name)) == str(version)


def roll_back(name: str) -> tuple[str, str]:
    """Make the champion before the present one champion again; returns the numbers of both, the present one first.

    Raises:
        InputError: there is no champion, none before it, or that version is gone.
    """
    client = mlflow.MlflowClient()
    champion = champion_of(name)
    if champion is None:
        raise InputError(f"{name} has no champion, so there is nothing to roll back")
    previous = champion.tags.get(FOLLOWED, "")
    if not previous:
        raise InputError(f"champion version {champion.version} of {name} is the first; there is none to go back to")
    try:
        client.get_model_version(name, previous)
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        raise InputError(f"version {previous} of {name}, the champion before, is no longer there") from error
    client.set_registered_model_alias(name, CHAMPION, previous)
    describe_champion(name)
    return _number(champion), previous


def describe_champion(name: str) -> None:
    """Say in the description of a registered model who is champion and how good; what else it says stays."""
    client = mlflow.MlflowClient()
    champion = champion_of(name)
    if champion is None:
        return
    before = client.get_registered_model(name).description or ""
    rest = before.partition(_RULE)[2] if before.startswith(_SAYS_CHAMPION) else before
    client.update_registered_model(name, _say_champion(champion) + (_RULE + rest if rest else ""))


def _say_champion(champion: ModelVersion) -> str:
    """The first lines of a champion's card, which say how good it is and where that is shown."""
    address = f"#/models/{quote(champion.name, safe='')}/versions/{champion.version}"
    said = [f"{_SAYS_CHAMPION}{champion.version}.** [Its card]({address})"]
    headline, _, rest = str(champion.description or "").partition("\n\n")
    if headline and not headline.startswith("#"):  # a card of an earlier release begins with its title
        said += [headline, *([links] if (links := rest.partition("\n\n")[0]).startswith("[") else [])]
    return "\n\n".join(said)


def find_version(model: str) -> ModelVersion | None:
    """Return the registered version that a `models:/` URI names at this time; None where there is none."""
    name, _, rest = model.removeprefix("models:/").partition("/" if "@" not in model else "@")
    if not model.startswith("models:/") or not rest:
        return None
    client = mlflow.MlflowClient()
    try:
        if "@" in model:
            return client.get_model_version_by_alias(name, rest)
        return client.get_model_version(name, rest)
    except MlflowException:
        return None


def logged_model_of(version: ModelVersion) -> str:
    """Return the id of the LoggedModel that a version was registered from; empty where it has none."""
    place = str(version.source or "").removeprefix("models:/")
    return place if place.startswith("m-") else ""


def resolve_onnx(model: str) -> Path:
    """The .onnx file that a path or a `models:/` URI names.

    Raises:
        InputError: no such registered model, version or alias.
    """
    if not model.startswith("models:"):
        return Path(model)
    try:
        folder = Path(mlflow.artifacts.download_artifacts(model))
    except (MlflowException, OSError) as error:
        raise InputError(f"no registered model {model} in {mlflow.get_tracking_uri()} ({error})") from error
    files = sorted(folder.rglob("*.onnx"))
    if len(files) != 1:
        raise InputError(f"{model} holds {len(files)} .onnx files; exactly one is expected")
    return files[0]


def _number(version: ModelVersion | None) -> str:
    return "" if version is None else str(version.version)
