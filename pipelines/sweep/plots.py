"""Pictures of a study: every trial across its parameters, and how much each parameter matters."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState

from gan_core.errors import first_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARALLEL_FILE = "parallel_coordinates.png"
IMPORTANCE_FILE = "importances.png"
DISTANCE = "distance"
LEAST_TRIALS = 2
DPI = 120


@dataclass(frozen=True)
class Plots:
    """The pictures that could be drawn, and a sentence where they could not."""

    files: tuple[Path, ...]
    missing: str | None

    @property
    def sentence(self) -> str:
        """For people."""
        return self.missing or f"plots: {', '.join(map(str, self.files))}"


def draw_plots(study: optuna.Study, folder: Path) -> Plots:
    """Draw both pictures into a folder, unless there is too little to show."""
    for name in (PARALLEL_FILE, IMPORTANCE_FILE):
        (folder / name).unlink(missing_ok=True)
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < LEAST_TRIALS:
        return Plots(
            (),
            f"no plots, which need {LEAST_TRIALS} finished trials, and there are {len(complete)}",
        )
    if len({trial.value for trial in complete}) == 1:
        return Plots((), "no plots, because all finished trials have the same distance")

    from optuna.visualization import matplotlib as drawings

    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    names = axis_names(complete[0].params)

    def parallel() -> "Axes":
        axes = drawings.plot_parallel_coordinate(study, target_name=DISTANCE)
        # Optuna cuts long names off, and draws the worst nearly white.
        axes.set_xticklabels([DISTANCE, *names], rotation=15, ha="right")
        for lines in axes.collections:
            lines.set_cmap("viridis")
        return axes

    def importances() -> "Axes":
        return drawings.plot_param_importances(study, evaluator=evaluator, target_name=DISTANCE)

    first = _draw(folder / PARALLEL_FILE, parallel, width_inches=3 + 2.5 * len(names))
    try:
        second = _draw(folder / IMPORTANCE_FILE, importances, width_inches=8)
    except RuntimeError as error:  # fANOVA's, of trials that hardly differ
        return Plots((first,), f"plots: {first}; no importances ({first_line(error).rstrip('.')})")
    return Plots((first, second), None)


def axis_names(parameters: Iterable[str]) -> list[str]:
    """The names of settings without their groups, in the order in which Optuna draws them."""
    return [name.partition(".")[2] for name in sorted(parameters)]


def _draw(path: Path, plot: "Callable[[], Axes]", width_inches: float) -> Path:
    import matplotlib as mpl
    from matplotlib import pyplot as plt
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), mpl.rc_context({"backend": "agg"}):
        warnings.simplefilter("ignore")  # Optuna's drawings are marked as experimental
        figure = plot().get_figure()
        assert isinstance(figure, Figure)  # noqa: S101
        figure.set_size_inches(width_inches, 4.5)
        figure.savefig(path, dpi=DPI, bbox_inches="tight")
        plt.close(figure)
    return path
