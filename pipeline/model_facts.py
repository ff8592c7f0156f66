"""What a caller must know of an architecture to feed its network."""

from deploy.runners import ModelMetadata
from pipeline.architecture import Architecture

REACH = {"conv1": 0, "conv3": 1, "conv5": 2, "residual": 2, "dws": 1}


def metadata_from_architecture(architecture: Architecture, precision: str) -> ModelMetadata:
    return ModelMetadata(
        scale=architecture.scale,
        color=architecture.color,
        multiple=architecture.unshuffle,
        margin=margin_from_architecture(architecture),
        architecture_id=architecture.id,
        precision=precision,
    )


def margin_from_architecture(architecture: Architecture) -> int:
    """LR pixels around an LR pixel that its SR pixels depend on, in each direction.

    The half kernels of the longest chain add up. Behind an up of variant A they reach half as far and less; they are
    counted in full, which is never too little.
    """
    reach = architecture.stem // 2 + architecture.tail // 2
    for step in architecture.path:
        reach += 1 if step == "up" else sum(REACH[op] for op in step.ops)
    if architecture.skip.startswith("conv"):
        reach = max(reach, int(architecture.skip[-1]) // 2)
    return reach * architecture.unshuffle
