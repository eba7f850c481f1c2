from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gan_core.errors import FoundryError
from gan_core.generator import ReleasedGenerator
from gan_core.serving import GeneratorModel, _load_pyfunc

MakeGenerator = Callable[..., ReleasedGenerator]


def test_a_served_generator_makes_an_image_a_label(
    make_generator: MakeGenerator, tmp_path: Path
) -> None:
    generator = make_generator()
    generator.save(tmp_path)
    labels = np.arange(10)
    images = _load_pyfunc(str(tmp_path)).predict(labels, {"seed": 7, "truncation": 0.8})
    assert np.array_equal(images, generator.sample(10, seed=7, labels=labels, truncation=0.8))
    assert np.array_equal(
        GeneratorModel(generator).predict(labels), generator.sample(10, labels=labels)
    )


def test_a_served_unconditional_generator_does_not_read_the_labels(
    make_generator: MakeGenerator,
) -> None:
    model = GeneratorModel(make_generator(conditional=False))
    assert np.array_equal(model.predict(np.full(3, -7)), model.predict(np.zeros(3, np.int64)))


def test_a_served_generator_refuses_labels_outside_its_classes(
    make_generator: MakeGenerator,
) -> None:
    with pytest.raises(FoundryError, match="the label 10 is outside the 10 classes"):
        GeneratorModel(make_generator()).predict(np.array([10]))
