"""The model card: what a registered generator is, in Markdown, for people who find it."""

from typing import Any

from gan_core.config import PipelineSettings, flat_settings
from gan_core.evaluation.report import Evaluation


def model_card(
    name: str,
    settings: PipelineSettings,
    evaluation: Evaluation,
    data: dict[str, Any],
    weights_sha256: str,
) -> str:
    """Write the card.

    Args:
        name: The registered model's name.
        settings: Of the run that trained it, without places of this machine.
        evaluation: Its measured quality.
        data: The description of the prepared images (`dataset.json`).
        weights_sha256: Of `generator.safetensors`.
    """
    recipe = "\n".join(f"| `{key}` | {value} |" for key, value in flat_settings(settings).items())
    numbers = "\n".join(
        f"| {row['name']} | {row['value']} | {row['interval']} | {row['floor']} |"
        for row in evaluation.number_rows()
    )
    checks = "\n".join(
        f"- {check.name}: {'passed' if check.passed else 'FAILED'}. {check.message}"
        for check in evaluation.checks
    )
    size = f"{data['height']}x{data['width']}x{data['channels']}"
    conditional = settings.network.conditional and data["class_names"]
    classes = f"{len(data['class_names'])} classes" if conditional else "no classes"
    return f"""# {name}

{settings.description or f"A generator of images like those of {data['source']}."}
It makes {size} uint8 images from random latents ({classes}).

## Use
    from gan_core import load_generator
    images = load_generator("models:/{name}@champion").sample(64, seed=7)

or `mlflow.pyfunc.load_model("models:/{name}@champion").predict(labels, params={{"seed": 7}})`
with int64 labels of shape (n,).

Intended for pictures to look at, for demonstrations and for experiments with generated data.
Whether generated images help another model to learn has to be measured for that model; nothing is
promised.

## Data
{data["source"]}: {data["counts"]["train"]} training and {data["counts"]["held_out"]} held-out
images, prepared set `{data["sha256"]}`. Licence of the data: {data["licence"]}.

## Quality
Fréchet distance **{evaluation.frechet_distance:.2f}**; real training images in the place of the
generated ones reach {evaluation.floor:.2f} (the floor).

| number | value | 95 % interval | real training images |
|---|---|---|---|
{numbers}

{checks}

Measured {evaluation.card.line}.

Second space: {evaluation.second.card.line}.

## Limits
Numbers compare only with those whose card is the same. Generated images follow the training
images, their gaps and their biases included, and may resemble single ones: see the memorisation
check above. It makes nothing but what the training images show, at their resolution.

## Reproduce
`gan-foundry reproduce {name} VERSION` trains again from the settings below (they are in
`settings.json` too) and the data of the hash above, and compares the weights.

| setting | value |
|---|---|
{recipe}

Weights `{weights_sha256}`.
"""
