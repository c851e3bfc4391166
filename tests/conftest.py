import os
from pathlib import Path

import pytest
from hypothesis import settings

# a shared machine must not fail a test by being slow, and CI must not draw other examples than we did
settings.register_profile("steady", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Folder of the real data files, or a skip that says how to get them."""
    folder = os.environ.get("PERTURBCORE_MIRROR", "")
    if not folder:
        pytest.skip("set PERTURBCORE_MIRROR to a folder with the pinned real files")
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"PERTURBCORE_MIRROR={folder} is not a folder")
    return Path(folder)
