from gan_core.config import setting_keys
from gan_core.settings_table import settings_table


def test_the_table_has_every_setting_of_every_section_once() -> None:
    table = settings_table()
    for key in setting_keys():
        if "." in key:
            assert table.count(f"| `{key}` |") == 1, key


def test_the_table_states_what_is_allowed_and_the_default() -> None:
    rows = {line.split("`")[1]: line for line in settings_table().splitlines() if "| `" in line}
    assert "`hinge`, `least_squares`" in rows["training.loss"]
    assert '| `"non_saturating"` |' in rows["training.loss"]
    assert "list of `translation`, `cutout`" in rows["training.augmentation.transforms"]
    assert "| integer ≥ 2, ≤ 65536 | `64` |" in rows["training.batch_size"]
    assert "| number > 0, ≤ 1 |" in rows["samples.truncation"]
    assert "| required |" in rows["data.source"]
