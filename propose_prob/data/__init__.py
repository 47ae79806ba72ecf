"""Readers of keypoints and motion, camera simulation, and the CMU17 benchmark."""
