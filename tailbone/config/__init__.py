"""Settings: the table of all settings, and the validated :class:`~tailbone.config.model.Config` of a run.

:mod:`~tailbone.config.table` lists each setting's flags, variable, path, kind, default and help. The command
line, the file reader, ``--help`` and docs/settings.md are generated from it.
:func:`tailbone.config.load.load` reads a run's settings from flags, variables and the file. Import from the
modules: ``tailbone --help`` needs only the table, and importing msgspec with the structs takes 25 ms.
"""
