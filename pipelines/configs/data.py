"""Images that are learned."""

from __future__ import annotations

from dataclasses import dataclass

from tl_core.recipes.checks import check_range
from tl_core.recipes.choices import ChosenPart, GroupedBy, SplitRule, Unreadable


@dataclass(frozen=True, kw_only=True)
class Data:
    """Images that are read."""

    data: str = "digits:target"
    """Class folders, an archive of them, a table of images and labels, digits:source, digits:target or eurosat."""
    unreadable: Unreadable = "refuse"
    """How unreadable files are met: refuse the data, or skip the files."""
    class_level: int = 0
    """Level of the folders that name the classes: 1 is the first below the data or below train, val and test, -1 that
    of the folder with the image in it, 0 finds out."""


@dataclass(frozen=True, kw_only=True)
class SplitData:
    """Labelled images that are learned, and those of them that are held out."""

    data: str = "digits:target"
    """Data spec: class folders (in folders train, val and test, or not), an archive of them, or a table."""
    split: SplitRule = "auto"
    """Split: that of the layout, a random one of each class, or auto, the layout's where there is one."""
    val_fraction: float = 0.1
    """Share of each class that chooses the epoch, where the layout has no such part."""
    test_fraction: float = 0.2
    """Share of each class that is scored, where the layout has no such part."""
    unreadable: Unreadable = "refuse"
    """How unreadable files are met: refuse the data, or skip the files."""
    class_level: int = 0
    """Level of the folders that name the classes: 1 is the first below the data or below train, val and test, -1 that
    of the folder with the image in it, 0 finds out."""

    def __post_init__(self) -> None:
        check_fractions(self.val_fraction, self.test_fraction)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Images that a backbone is pretrained on."""

    source: str = "digits:source"
    """Data spec of the source."""
    unreadable: Unreadable = "refuse"
    """How unreadable files are met: refuse the source, or skip the files."""
    class_level: int = 0
    """Level of the folders that name the classes: 1 is the first below the data or below train, val and test, -1 that
    of the folder with the image in it, 0 finds out."""


@dataclass(frozen=True, kw_only=True)
class SplitSource:
    """Images that a backbone is pretrained on."""

    source: str = "digits:source"
    """Data spec of the source."""
    val_fraction: float = 0.1
    """Share of each class that chooses the epoch."""
    test_fraction: float = 0.1
    """Share of each class that is scored once, at the end."""
    unreadable: Unreadable = "refuse"
    """How unreadable files are met: refuse the source, or skip the files."""
    class_level: int = 0
    """Level of the folders that name the classes: 1 is the first below the data or below train, val and test, -1 that
    of the folder with the image in it, 0 finds out."""

    def __post_init__(self) -> None:
        check_fractions(self.val_fraction, self.test_fraction)


@dataclass(frozen=True, kw_only=True)
class TargetData:
    """The few images that are learned."""

    target: str = "digits:target"
    """Data spec of the target."""
    unreadable: Unreadable = "refuse"
    """How unreadable files are met: refuse the target, or skip the files."""
    class_level: int = 0
    """Level of the folders that name the classes: 1 is the first below the data or below train, val and test, -1 that
    of the folder with the image in it, 0 finds out."""


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """Labelled images that the classifier is made from."""

    data: str = "digits:target"
    """Data spec: class folders, an archive of them, or a table of images and labels."""
    group: GroupedBy = "auto"
    """Images that stay in one fold, besides near-duplicates: those that share a group in a csv's column group (auto),
    or the folder that holds the class folders (folder): patient7/healthy/1.jpg and patient7/ill/2.jpg."""
    unreadable: Unreadable = "refuse"
    """How unreadable files are met: refuse the data, or skip the files."""
    class_level: int = 0
    """Level of the folders that name the classes: 1 is the first below the data or below train, val and test, -1 that
    of the folder with the image in it, 0 finds out."""


@dataclass(frozen=True, kw_only=True)
class PartOfTarget:
    """The few images that are learned, and the part of them that episodes draw from."""

    target: str = "digits:target"
    """Data spec of the target."""
    part: ChosenPart = "auto"
    """Images that episodes draw from: the half that search never sees (report), the half it sees (search), or all; auto
    is all where few images are left in a half and nothing was searched, else report."""
    unreadable: Unreadable = "refuse"
    """How unreadable files are met: refuse the target, or skip the files."""
    class_level: int = 0
    """Level of the folders that name the classes: 1 is the first below the data or below train, val and test, -1 that
    of the folder with the image in it, 0 finds out."""


@dataclass(frozen=True, kw_only=True)
class SourceAndTarget:
    """Images that the backbone is pretrained on, and the few that are learned."""

    source: str = "digits:source"
    """Data spec of the source; it is not read where weights are given."""
    target: str = "digits:target"
    """Data spec of the target."""
    unreadable: Unreadable = "refuse"
    """How unreadable files are met: refuse the data, or skip the files."""
    class_level: int = 0
    """Level of the folders that name the classes: 1 is the first below the data or below train, val and test, -1 that
    of the folder with the image in it, 0 finds out."""


def check_fractions(val: float, test: float) -> None:
    """Raise `InputError` unless both fractions leave images for training."""
    check_range("val_fraction", val, 0.001, 0.5)
    check_range("test_fraction", test, 0.001, 0.5)
