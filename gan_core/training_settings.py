"""Settings of the training: the game and its rules, augmentation, monitoring and alarms."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .settings_base import Fraction, Settings

Precision = Literal["auto", "fp32", "bf16"]
Device = Literal["auto", "cpu", "cuda"]
LossName = Literal[
    "non_saturating", "minimax", "hinge", "least_squares", "wasserstein", "relativistic"
]
Transform = Literal["translation", "cutout", "color", "affine"]
Reaction = Literal["note", "roll_back", "stop"]


class AugmentationSettings(Settings):
    """What the discriminator sees instead of the images themselves (Zhao et al. 2020)."""

    transforms: tuple[Transform, ...] = Field(
        (),
        description="Differentiable changes to what the discriminator sees; none by default.",
    )
    images: Literal["all", "real"] = Field(
        "all",
        description="`all` changes real and generated images alike, and the generator need not "
        "learn the changes; `real` widens the data, and it learns them.",
    )
    strength: Literal["fixed", "adaptive"] = Field(
        "fixed",
        description="`adaptive` moves the probability so that the discriminator's certainty "
        "meets `target` (ADA, Karras et al. 2020).",
    )
    probability: Fraction = Field(
        1.0,
        description="Probability of each transform for each image; with adaptive strength, the "
        "first one is 0 and this the largest.",
    )
    affine_magnitude: Fraction = Field(
        1.0,
        description="affine only: share of its largest changes, which are 10 degrees of rotation "
        "and 5 of shear, 11 % of scale and 5 % of each side.",
    )
    target: Fraction = Field(
        0.6,
        description="adaptive only: the mean sign of the discriminator's judgement of real images; "
        "of real ones against generated ones, where the loss compares them (`relativistic`, "
        "`wasserstein`).",
    )
    adjustment_kimg: Annotated[float, Field(gt=0.0)] = Field(
        500.0, description="adaptive only: the probability takes so long from 0 to 1."
    )

    @model_validator(mode="after")
    def _each_transform_once(self) -> Self:
        if len(set(self.transforms)) < len(self.transforms):
            raise ValueError(f"names a transform twice: {', '.join(self.transforms)}")
        return self


class MonitoringSettings(Settings):
    """The distance measured while training, and what is released in the end."""

    interval_kimg: Annotated[float, Field(ge=0.0)] = Field(
        50.0,
        description="The distance to the training images every so many kimg; 0 switches it off, "
        "and with it the alarms but for `non_finite`.",
    )
    samples: Annotated[int, Field(ge=2, le=100_000)] = Field(
        2000, description="Generated images for it; always from the same latents."
    )
    release: Literal["best", "last"] = Field(
        "best", description="What is released: the snapshot of the smallest distance, or the last."
    )
    patience_evaluations: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Training ends when so many evaluations brought no smaller distance; 0 trains "
        "the whole budget.",
    )


class AlarmSettings(Settings):
    """Signs of collapse, each with the reaction to it.

    `note` writes it down; `roll_back` also returns to the best snapshot, with smaller learning
    rates; `stop` also ends the training with the best snapshot.
    """

    evaluations: Annotated[int, Field(ge=1)] = Field(
        3, description="Alarms but for `non_finite` need so many evaluations in a row."
    )
    non_finite: Literal["roll_back", "stop"] = Field(
        "stop", description="A loss is NaN or infinite; `stop` fails and keeps what was saved."
    )
    distance: Reaction = Field(
        "roll_back", description="The distance is at least `distance_ratio` times the best."
    )
    distance_ratio: Annotated[float, Field(gt=1.0)] = Field(2.0, description="See `distance`.")
    coverage: Reaction = Field(
        "note", description="The class coverage is `coverage_drop` or more below its best."
    )
    coverage_drop: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.2, description="See `coverage`."
    )
    diversity: Reaction = Field(
        "note",
        description="The pairwise distance of samples of a class has fallen by the share "
        "`diversity_drop` from its best.",
    )
    diversity_drop: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.5, description="See `diversity`."
    )
    discriminator: Reaction = Field(
        "note", description="The discriminator is right on the share `discriminator_accuracy`."
    )
    discriminator_accuracy: Annotated[float, Field(gt=0.5, le=1.0)] = Field(
        0.999, description="See `discriminator`."
    )
    rate_factor: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.5, description="Both learning rates are multiplied by it at each roll-back."
    )
    most_roll_backs: Annotated[int, Field(ge=0)] = Field(
        3, description="After so many, an alarm that would roll back stops the training."
    )


class TrainingSettings(Settings):
    """The adversarial game: how long, how fast, under which rules. Budgets are in kimg."""

    kimg: Annotated[float, Field(gt=0.0, le=1e6)] = Field(
        100.0,
        description="Budget: thousands of real images shown to the discriminator. A raised budget "
        "continues a finished training.",
    )
    batch_size: Annotated[int, Field(ge=2, le=65536)] = Field(
        64,
        description="Images a step; a multiple of `processes` times `accumulation_steps`, and at "
        "least twice that.",
    )
    accumulation_steps: Annotated[int, Field(ge=1, le=1024)] = Field(
        1,
        description="Parts of a batch whose gradients are summed, one part in memory at a time.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="Seed of initialisation, data order and latents."
    )
    start_from: Literal["scratch", "champion"] | Annotated[int, Field(ge=1, strict=True)] = Field(
        "scratch",
        description="Both networks begin with random weights, or with those of the registered "
        "champion (from scratch while there is none), or of a version by its number.",
    )
    precision: Precision = Field(
        "auto", description="`auto` is bf16 where the machine computes in it, else fp32."
    )
    device: Device = Field("auto", description="`auto` is the GPU, where there is one.")
    threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None,
        description="CPU threads of a training process; by default the processes share all cores "
        "that there are when it begins.",
    )
    launcher: Literal["process", "torchrun"] = Field(
        "process", description="One process, or `processes` of them that share each batch."
    )
    processes: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="torchrun only: processes on this machine, one a GPU where there are GPUs."
    )
    loss: LossName = Field(
        "non_saturating",
        description="The game: `minimax` and `non_saturating` (Goodfellow et al. 2014), `hinge` "
        "(Lim and Ye 2017), `least_squares` (Mao et al. 2017), `wasserstein` (Arjovsky et al. "
        "2017), `relativistic` pairing (Jolicoeur-Martineau 2019).",
    )
    r1_gamma: Annotated[float, Field(ge=0.0)] = Field(
        0.3,
        description="Weight of the R1 gradient penalty on real images, as the discriminator sees "
        "them (augmented); 0 switches it off.",
    )
    r2_gamma: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="Weight of the R2 gradient penalty on generated images."
    )
    wgan_gp_weight: Annotated[float, Field(ge=0.0)] = Field(
        0.0,
        description="Weight of the WGAN-GP penalty on mixtures of real and generated images.",
    )
    penalty_interval_steps: Annotated[int, Field(ge=1)] = Field(
        1, description="Penalties are taken every so many steps, and weigh so many times more."
    )
    discriminator_steps: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="Steps of the discriminator for each of the generator."
    )
    generator_learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        2e-3, description="Adam's step size for the generator."
    )
    discriminator_learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        2e-3, description="Adam's step size for the discriminator."
    )
    adam_betas: tuple[
        Annotated[float, Field(ge=0.0, lt=1.0)], Annotated[float, Field(ge=0.0, lt=1.0)]
    ] = Field((0.0, 0.99), description="Adam's decay rates of the two moments.")
    learning_rate_warmup_kimg: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="Both rates rise linearly from zero for so long."
    )
    learning_rate_decay_start: Fraction = Field(
        0.5,
        description="Share of the budget after which both rates fall linearly to zero; 1 keeps "
        "them constant.",
    )
    ema_halflife_kimg: Annotated[float, Field(ge=0.0)] = Field(
        5.0,
        description="Half-life of the generator's weight average; 0 switches the average off.",
    )
    ema_rampup: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.05, description="The half-life is at most this share of the images shown so far."
    )
    horizontal_flips: bool = Field(
        False, description="Show each real image mirrored half of the time."
    )
    augmentation: AugmentationSettings = AugmentationSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    alarms: AlarmSettings = AlarmSettings()
    logging_interval_kimg: Annotated[float, Field(gt=0.0)] = Field(
        1.0, description="A journal line every so many kimg."
    )
    grid_interval_kimg: Annotated[float, Field(gt=0.0)] = Field(
        10.0, description="A grid of samples every so many kimg."
    )
    checkpoint_interval_seconds: Annotated[float, Field(gt=0.0)] = Field(
        15.0, description="A checkpoint every so many seconds, and at the end."
    )

    @model_validator(mode="after")
    def _batches_can_be_divided(self) -> Self:
        if self.processes > 1 and self.launcher != "torchrun":
            raise ValueError(
                f"processes {self.processes} goes with launcher torchrun, but it is {self.launcher}"
            )
        parts = self.processes * self.accumulation_steps
        if self.batch_size % parts or self.batch_size < 2 * parts:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be divided into {self.processes} processes x "
                f"{self.accumulation_steps} accumulation_steps of at least 2 images; make it a "
                f"multiple of {parts}, at least {2 * parts}"
            )
        return self

    @model_validator(mode="after")
    def _what_is_asked_for_can_happen(self) -> Self:
        monitoring, augmentation = self.monitoring, self.augmentation
        if monitoring.patience_evaluations and not monitoring.interval_kimg:
            raise ValueError(
                f"monitoring.patience_evaluations {monitoring.patience_evaluations} counts "
                "evaluations while training, but monitoring.interval_kimg 0 makes none; set it "
                "above 0"
            )
        if augmentation.strength == "adaptive" and not augmentation.transforms:
            raise ValueError(
                "augmentation.strength adaptive is for augmentation.transforms, but there are "
                "none; name some"
            )
        if augmentation.strength == "adaptive" and not augmentation.probability:
            raise ValueError(
                "augmentation.strength adaptive goes up to augmentation.probability, but that is "
                "0; raise it"
            )
        if self.alarms.non_finite == "roll_back" and not monitoring.interval_kimg:
            raise ValueError(
                "alarms.non_finite roll_back returns to the best snapshot, but "
                "monitoring.interval_kimg 0 takes none; set it above 0"
            )
        steps = max(1, round(self.kimg * 1000 / self.batch_size))
        if self.discriminator_steps > steps:
            raise ValueError(
                f"discriminator_steps {self.discriminator_steps} is more than the {steps} steps "
                f"of kimg {self.kimg:g} in batches of {self.batch_size}, so that the generator "
                "would learn nothing; lower it or raise kimg"
            )
        return self
