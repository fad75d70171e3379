"""Settings: one table of them all, and the checked :class:`~tailbone.config.model.Config` of a run.

:mod:`~tailbone.config.table` lists each setting's flags, variable, path, kind, default and help; the command
line, the file reader, ``--help`` and the README's table are made from it. :func:`tailbone.config.load.load`
makes a run's settings from flags, variables and file. Import from the modules: ``tailbone --help`` needs only
the table, and msgspec with the structs would cost it 25 ms.
"""
