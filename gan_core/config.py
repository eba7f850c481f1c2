"""Every setting of a pipeline, as frozen pydantic models.

The YAML files, the command line's `--set`, the training job, the checkpoints, the MLflow parameters
and the model card all speak this vocabulary. Nothing here reads files or imports torch. The larger
sections are modules of their own, `*_settings`.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from .errors import FoundryError
from .evaluation_settings import EvaluationSettings, FeatureNetworkSettings
from .notification_settings import NotificationSettings
from .operation_settings import OperationSettings, ScheduleSettings
from .settings_base import Fraction, Settings
from .sweep_settings import SweepSettings, is_sweepable
from .training_settings import TrainingSettings

SourceName = Literal["digits", "mnist", "fashion_mnist", "kmnist", "cifar10", "image_folder"]

Side = Annotated[int, Field(ge=8, le=1024)]
Channels = Annotated[int, Field(ge=1, le=4096)]


class DataSettings(Settings):
    """Where the images come from and what shape they are brought to."""

    source: SourceName = Field(description="The data set, or `image_folder` for one's own images.")
    path: str | None = Field(
        None,
        description="image_folder only: a folder or zip of PNG, JPEG or WebP files; relative to "
        "the file that names it.",
    )
    archive: str | None = Field(
        None,
        description="image_folder only: address of a zip to download, relative to the mirror or "
        "absolute; needs `sha256`.",
    )
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        None, description="SHA-256 of `archive`, 64 hexadecimal digits."
    )
    resolution: Side | tuple[Side, Side] = Field(
        32,
        description="Height and width in pixels; one number means a square. With networks of n "
        "steps, multiples of 2^(n - 1), and at least 2^n.",
    )
    channels: Annotated[int, Field(ge=1, le=4)] = Field(
        3,
        description="1 grey, 2 grey + alpha, 3 RGB, 4 RGBA. Where there is no alpha, what is "
        "transparent shows black.",
    )
    fit: Literal["pad", "crop", "stretch"] = Field(
        "crop",
        description="How another aspect ratio is met: `pad` with black, `crop` the centre, or "
        "`stretch`.",
    )
    held_out_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.2,
        description="Share of each class kept from training, for sources without a test split.",
    )
    split_seed: int = Field(0, ge=0, description="Seed of that split.")

    @property
    def height(self) -> int:
        """Image height in pixels."""
        return self.resolution if isinstance(self.resolution, int) else self.resolution[0]

    @property
    def width(self) -> int:
        """Image width in pixels."""
        return self.resolution if isinstance(self.resolution, int) else self.resolution[1]

    @model_validator(mode="after")
    def _image_folder_has_a_place(self) -> Self:
        given = [key for key in ("path", "archive") if getattr(self, key) is not None]
        if self.source == "image_folder":
            if len(given) != 1:
                raise ValueError("source image_folder needs exactly one of `path` and `archive`")
            if self.archive is not None and self.sha256 is None:
                raise ValueError("`archive` needs its `sha256`, so that the download is verified")
        elif given:
            raise ValueError(
                f"`{given[0]}` goes with source image_folder, but the source is {self.source}"
            )
        return self


class NetworkSettings(Settings):
    """The generator and the discriminator."""

    family: Literal["dcgan", "resnet"] = Field(
        "dcgan",
        description="`dcgan`: transposed convolutions against a convolutional classifier; "
        "`resnet`: residual blocks without normalisation, which want rates of 1e-3 or less.",
    )
    latent_dim: Annotated[int, Field(ge=1, le=4096)] = Field(
        64, description="Length of a latent vector."
    )
    conditional: bool = Field(
        True, description="Condition on the class label, where the data have labels."
    )
    generator_channels: Annotated[tuple[Channels, ...], Field(min_length=2, max_length=8)] = Field(
        (128, 64, 32),
        description="Feature maps from the coarsest resolution to the finest; each step doubles "
        "the resolution.",
    )
    discriminator_channels: Annotated[tuple[Channels, ...], Field(min_length=2, max_length=8)] = (
        Field(
            (32, 64, 128),
            description="Feature maps from the finest resolution to the coarsest; each step but "
            "the last halves the resolution.",
        )
    )
    discriminator_head: Literal["hidden", "mean"] = Field(
        "hidden",
        description="dcgan only: what follows the convolutions, each of which sees a part of the "
        "image: a `hidden` layer that sees all of it, or the `mean` over it.",
    )
    blocks_per_resolution: Annotated[int, Field(ge=1, le=8)] = Field(
        1, description="resnet only: residual blocks at each resolution."
    )
    spectral_norm: bool = Field(
        False,
        description="Divide the discriminator's weights by their largest singular value "
        "(Miyato et al. 2018).",
    )


class SampleSettings(Settings):
    """What is exported for people."""

    count: Annotated[int, Field(ge=1, le=100_000)] = Field(64, description="Images to export.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(7, description="Seed of their latents.")
    truncation: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="Latents are multiplied by this: smaller is more typical, less varied."
    )


class GateSettings(Settings):
    """What a candidate must reach, beside the checks, to take the champion's place."""

    tolerance: Fraction = Field(
        0.1,
        description="Largest possible loss, as a share of the champion's distance: the upper end "
        "of the difference's 95 % interval must not be above it. 0 asks for a sure gain.",
    )
    distance_over_floor_most: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="Largest distance, in floors; none by default."
    )


class PipelineSettings(Settings):
    """One pipeline: everything from the images to the registered generator."""

    description: str = Field("", description="One sentence for the user interface.")
    data: DataSettings
    network: NetworkSettings = NetworkSettings()
    training: TrainingSettings = TrainingSettings()
    feature_network: FeatureNetworkSettings = FeatureNetworkSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    samples: SampleSettings = SampleSettings()
    promotion: Literal["automatic", "manual"] = Field(
        "automatic",
        description="`manual`: a candidate that passes the gate waits as challenger for "
        "`gan-foundry promote`.",
    )
    gate: GateSettings = GateSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    on_new_data: bool = Field(
        False,
        description="image_folder only: a sensor, switched on in Dagster's pages, starts a run "
        "when images were added, changed or removed.",
    )
    operation: OperationSettings = OperationSettings()
    notifications: NotificationSettings = NotificationSettings()
    sweep: SweepSettings = SweepSettings()

    @model_validator(mode="after")
    def _network_makes_the_resolution(self) -> Self:
        check_resolution(self.network, self.data.height, self.data.width)
        if self.training.kimg * 1000 < self.training.batch_size:
            raise ValueError(
                f"training.kimg {self.training.kimg:g} is less than one batch of "
                f"training.batch_size {self.training.batch_size} images"
            )
        if self.on_new_data and self.data.path is None:
            raise ValueError(
                f"on_new_data is true, but the images of data.source {self.data.source} do not "
                "change; it needs image_folder and data.path"
            )
        return self

    @model_validator(mode="after")
    def _swept_settings_are_some(self) -> Self:
        for key in self.sweep.swept_keys:
            if key not in setting_keys():
                raise ValueError(f"sweep.parameters: {_unknown_key(key)}")
            if not is_sweepable(key):
                raise ValueError(
                    f"sweep.parameters: {key} cannot be swept, because its trials could not be "
                    "compared; take settings of network and training other than the budget, the "
                    "seed, the intervals, monitoring, alarms and what is left to the machine"
                )
        return self


def check_resolution(network: NetworkSettings, height: int, width: int) -> None:
    """Raise ValueError unless both networks can make this height and width, in pixels."""
    for key, channels in (
        ("network.generator_channels", network.generator_channels),
        ("network.discriminator_channels", network.discriminator_channels),
    ):
        factor = 2 ** (len(channels) - 1)
        if height % factor or width % factor or min(height, width) < 2 * factor:
            raise ValueError(
                f"data.resolution {height}x{width} cannot be made by {key} of {len(channels)} "
                f"steps: both sides must be multiples of {factor} and at least {2 * factor}"
            )


def parse_settings(values: Mapping[str, Any], origin: str) -> PipelineSettings:
    """Validate plain values into settings.

    Args:
        values: The attributes of a pipeline, as read from YAML.
        origin: Where they came from, for the error (a file's path, `--set`).

    Raises:
        FoundryError: Names the origin, the key, the value and what is allowed.
    """
    try:
        return PipelineSettings.model_validate(values)
    except ValidationError as error:
        raise FoundryError(f"{origin}: {describe_validation_error(error)}") from None


def apply_overrides(
    settings: PipelineSettings, overrides: Mapping[str, Any], origin: str
) -> PipelineSettings:
    """Return the settings with dotted keys replaced, such as {"training.kimg": 20}.

    Raises:
        FoundryError: For an unknown key or a value out of range, naming what is allowed.
    """
    if not overrides:
        return settings
    values = settings.model_dump()
    known = set(setting_keys())
    for key, value in overrides.items():
        *sections, last = key.split(".")
        place: Any = values
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if not isinstance(place, dict) or key not in known:
            raise FoundryError(f"{origin}: {_unknown_key(key)}")
        place[last] = value
    return parse_settings(values, origin)


def setting_keys(model: type[BaseModel] = PipelineSettings, prefix: str = "") -> list[str]:
    """All dotted keys of a settings tree, in their order of declaration."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            keys += setting_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def flat_settings(settings: Settings, prefix: str = "") -> dict[str, Any]:
    """The settings as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            flat |= flat_settings(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def fingerprint(values: Any) -> str:
    """A short hash (16 hexadecimal digits of SHA-256) of JSON-serialisable values or settings."""
    plain = json.dumps(
        values,
        sort_keys=True,
        default=lambda item: item.model_dump(mode="json"),
        separators=(",", ":"),
    )
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def describe_validation_error(error: ValidationError) -> str:
    """One sentence for the first problem that pydantic found, naming key, value and remedy."""
    problems = error.errors()
    key = _dotted_key(problems[0]["loc"])
    # Of a choice between shapes, the branch that got furthest is the one that was meant.
    same = [problem for problem in problems if _dotted_key(problem["loc"]) == key]
    first = max(same, key=lambda problem: len(problem["loc"]))
    if first["type"] == "extra_forbidden":
        return _unknown_key(key)
    if first["type"] == "missing" and len(first["loc"]) > len(key.split(".")):
        return f"{key} is {first['input']!r}, which has too few values{_hint(key)}"
    if first["type"] == "missing":
        return f"the setting {key} is missing{_choices(key)}"
    if first["type"] == "value_error":
        reason = str(first["ctx"]["error"]) if "ctx" in first else first["msg"]
        return f"{key}: {reason}" if key else reason
    remedy = re.sub(r"^\w+ should", "it must", first["msg"])
    if first["type"] == "model_type":
        return f"{key or 'the file'} is {first['input']!r}, but it must be a mapping of settings"
    return f"{key} is {first['input']!r}, but {remedy}{_hint(key)}"


def _dotted_key(location: tuple[int | str, ...]) -> str:
    """The setting at a pydantic location, which goes on into unions and tuple items below it."""
    parts: list[str] = []
    model: Any = PipelineSettings
    for part in location:
        parts.append(str(part))
        field = getattr(model, "model_fields", {}).get(part)
        if field is None or not hasattr(field.annotation, "model_fields"):
            break
        model = field.annotation
    return ".".join(parts)


def _field(key: str) -> Any:
    model: Any = PipelineSettings
    field = None
    for part in key.split("."):
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return None
        model = field.annotation
    return field


def _hint(key: str) -> str:
    field = _field(key)
    return f" ({field.description.rstrip('.')})" if field is not None and field.description else ""


def _choices(key: str) -> str:
    choices = [choice for choice in get_args(_field(key).annotation) if isinstance(choice, str)]
    return f"; allowed are {', '.join(choices)}" if choices else ""


def _unknown_key(key: str) -> str:
    known = setting_keys()
    within = [name for name in known if name.startswith(f"{key}.")]
    if within:
        return f"{key} is not a setting but a group of them; name one of {', '.join(within)}"
    section = key.rpartition(".")[0]
    sections = list(PipelineSettings.model_fields)
    inside = [name for name in known if section and name.rpartition(".")[0] == section]
    siblings = inside or sections
    close = difflib.get_close_matches(key, inside or [*sections, *known], n=1)
    suggestion = f"did you mean {close[0]}? " if close else ""
    return f"{key} is not a setting; {suggestion}Allowed are {', '.join(siblings)}"
