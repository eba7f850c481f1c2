"""Dagster components of this project."""

from pipelines.components.gan_pipeline import GanPipeline

__all__ = ["GanPipeline"]
