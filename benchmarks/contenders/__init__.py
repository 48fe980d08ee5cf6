"""The same photographs through the same network, by four programs; benchmarks/peers.py runs them, in turns.

Each is `python -m benchmarks.contenders.NAME IMAGES WEIGHTS OUTPUT [VARIANT]`: a directory of JPEGs, a Keras file of
Inception-v3 without its top, what to write. All but ours are written as their own documentation does it; each names it.
"""
