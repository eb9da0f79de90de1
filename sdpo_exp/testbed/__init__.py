"""The embedded world: 2,800 scenes of 32 x 32 pixels, their captions, and a checker that is exact.

It makes every claim of the framework testable in seconds on a CPU: whether a generated image shows
what its prompt says is computed here, not judged by a learned scorer.
"""
