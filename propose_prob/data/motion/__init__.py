"""Motion files: BVH in and out, ASF/AMC in."""

from .amc import read_amc
from .body import write_body_bvh
from .bvh import read_bvh, write_bvh
from .motion import Motion

__all__ = ["Motion", "read_amc", "read_bvh", "write_body_bvh", "write_bvh"]
