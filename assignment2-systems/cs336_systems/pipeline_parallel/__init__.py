"""Pipeline parallelism: consecutive layers of a Transformer on the ranks of a group, fed in microbatches."""

from cs336_systems.pipeline_parallel.runner import PipelineParallel
from cs336_systems.pipeline_parallel.schedules import SCHEDULES, bubble_fraction, chart
from cs336_systems.pipeline_parallel.stages import PipelineStage, split_layers

__all__ = ["SCHEDULES", "PipelineParallel", "PipelineStage", "bubble_fraction", "chart", "split_layers"]
