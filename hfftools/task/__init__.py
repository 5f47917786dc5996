"""Hold one module for each task; CONTRIBUTING.md, "Adding a task", walks through one.

A module has `Config`, the dataclass of its options, and `Task`, a class over `base.Task` or, for one that recognises
speech, over `base.Recognition`; base.py says what it has to state. Nothing outside this folder asks for a task by its name.
"""

# Modules of this folder that tasks share; every other module is a task.
NOT_PLUGINS = ("base",)
