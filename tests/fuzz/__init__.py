"""Every format that the commands read, broken in seeded ways, and what must hold whatever it was.

A plain generator, and not hypothesis or atheris: a case runs in a process that may die of it, so that there is nobody
left to shrink it, and is told by three words (format, seed, number) that repeat it on any machine.
"""
