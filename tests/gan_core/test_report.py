import math
from pathlib import Path

from gan_core.evaluation.estimate import Estimate
from gan_core.evaluation.report import Evaluation
from tests.gan_core.evaluation_samples import make_evaluation
from tests.loaded_modules import packages, run_alone

READ = """
import json, sys
from pathlib import Path
from gan_core.evaluation.report import Evaluation
print(json.dumps({"read": [Evaluation.read(Path(".")).sentence], "modules": sorted(sys.modules)}))
"""


def test_an_evaluation_is_read_without_pytorch(tmp_path: Path) -> None:
    evaluation = make_evaluation()
    evaluation.write(tmp_path)
    found = run_alone(READ, tmp_path)
    assert found["read"] == [evaluation.sentence]
    assert not {"torch", "matplotlib", "sklearn"} & packages(found["modules"])


def test_one_sentence_tells_the_outcome() -> None:
    assert make_evaluation().sentence.endswith("reach 3.4; every check holds.")
    assert make_evaluation(passed=False).sentence.endswith("the checks of collapse fail.")
    assert "4.13 (3.71 to 4.54) in classifier" in make_evaluation().sentence


def test_numbers_that_are_not_finite_are_kept_and_are_none_for_programs(tmp_path: Path) -> None:
    found = make_evaluation()
    endless = Estimate(value=math.inf, low=1.0, high=math.inf)
    metrics = {**found.gate.metrics, "class_kl": endless}
    gate = found.gate.model_copy(update={"metrics": metrics})
    changed = found.model_copy(update={"gate": gate})
    changed.write(tmp_path)
    assert Evaluation.read(tmp_path) == changed
    assert changed.summary()["class_kl"] is None
    assert changed.summary()["class_kl_ci"] == [1.0, None]
