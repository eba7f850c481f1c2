"""Where things lie, whatever the environment says, and how the home is made."""

import shutil
from pathlib import Path

import pytest

from gan_core.errors import FoundryError
from pipelines import home


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{here}/mlflow.db"),
        ("sqlite+pysqlite:///runs/mlflow.db", "sqlite+pysqlite:///{here}/runs/mlflow.db"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite:///file:/data/m.db?uri=true", "sqlite:///file:/data/m.db?uri=true"),
        ("sqlite:///", "sqlite:///"),
        ("postgresql://host/mlflow", "postgresql://host/mlflow"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_a_database_beside_the_working_folder_is_the_same_from_everywhere(
    written: str, meant: str, tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", written)
    monkeypatch.chdir(tmp_path)
    assert home.tracking_uri() == meant.format(here=tmp_path)
    home.prepare_home()
    monkeypatch.chdir("/")  # where another process may begin
    assert home.tracking_uri() == meant.format(here=tmp_path)


def test_a_home_whose_settings_could_not_be_copied_gets_them_the_next_time(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fills_the_disk(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(shutil, "copyfile", fills_the_disk)
        with pytest.raises(FoundryError, match=r"cannot be written \(No space left on device\)"):
            home.prepare_home()
    assert list(own_home.iterdir()) == []
    home.prepare_home()
    ours = home.PROJECT / "dagster_home" / home.INSTANCE_FILE
    assert (own_home / home.INSTANCE_FILE).read_bytes() == ours.read_bytes()
