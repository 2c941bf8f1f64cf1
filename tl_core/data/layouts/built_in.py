"""Data that come along (handwritten digits), or are downloaded once (EuroSAT)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from filelock import FileLock

from tl_core.data.layouts.digits import write_digits
from tl_core.data.layouts.folders import list_folder
from tl_core.data.layouts.listing import ImageListing, Layout
from tl_core.errors import InputError

BUILT_IN = ("digits:source", "digits:target", "eurosat")


def _accepts(spec: str) -> bool:
    return spec.startswith("digits:") or spec == "eurosat"


def _list_built_in(spec: str, data_dir: Path, level: int) -> ImageListing:  # noqa: ARG001 - its classes are known
    return list_folder(spec, _download_eurosat(data_dir) if spec == "eurosat" else write_digits(spec, data_dir))


def _download_eurosat(data_dir: Path) -> Path:
    folder = data_dir / "eurosat"
    data_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(data_dir / "eurosat.lock"):
        if not folder.is_dir():
            from torchvision.datasets import EuroSAT

            # Beside its place and then renamed: what a killed download leaves is never taken for the whole.
            with tempfile.TemporaryDirectory(dir=data_dir) as scratch:
                try:
                    EuroSAT(scratch, download=True)
                except (OSError, RuntimeError) as error:
                    raise InputError(
                        f"EuroSAT could not be downloaded ({error}); fetch EuroSAT.zip elsewhere and give its path"
                    ) from error
                Path(scratch, "eurosat").rename(folder)
    return folder / "2750"


LAYOUT = Layout(", ".join(BUILT_IN), _accepts, _list_built_in)
