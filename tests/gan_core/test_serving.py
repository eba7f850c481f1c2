from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.exceptions import MlflowException

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
    with pytest.raises(MlflowException, match="the label 10 is outside the 10 classes") as caught:
        GeneratorModel(make_generator()).predict(np.array([10]))
    assert caught.value.get_http_status_code() == 400


@pytest.mark.parametrize(
    ("labels", "params", "sentence"),
    [
        ([1.5], {}, r"labels have shape \(1,\) and type float64, but 1 integers"),
        ([[1, 2]], {}, r"labels have shape \(1, 2\)"),
        (["one"], {}, r"labels have shape \(1,\) and type <U3"),
        ([], {}, "the number of images is 0, but it must be at least 1"),
        ([1], {"sead": 7}, "there is no parameter 'sead'; use seed and truncation"),
        ([1], {"seed": "7"}, "seed is '7', but it must be an integer"),
        ([1], {"seed": 7.0}, "seed is 7.0, but it must be an integer"),
        ([1], {"seed": True}, "seed is True, but it must be an integer"),
        ([1], {"seed": -1}, "the seed is -1, but it must be from 0"),
        ([1], {"truncation": "0.5"}, "truncation is '0.5', but it must be a number"),
        ([1], {"truncation": 1.5}, "truncation is 1.5, but it must be above 0 and at most 1"),
        ([1], {"truncation": float("nan")}, "truncation is nan, but it must be above 0"),
    ],
)
def test_a_served_generator_refuses_what_it_does_not_understand(
    make_generator: MakeGenerator, labels: list[Any], params: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(MlflowException, match=sentence):
        GeneratorModel(make_generator()).predict(np.array(labels), params)


def test_numbers_of_numpy_are_numbers(make_generator: MakeGenerator) -> None:
    model = GeneratorModel(make_generator())
    params = {"seed": np.int32(7), "truncation": np.float32(0.5)}
    assert np.array_equal(
        model.predict(np.array([1]), params),
        model.predict(np.array([1]), {"seed": 7, "truncation": 0.5}),
    )
