"""Learned scores of generated images: PickScore, CLIP, HPSv2, aesthetic, ImageReward."""
