"""The store: what outlives a worker, and what outlives a supervisor.

Rule 1: in a state directory that is kept, a change is on disk before its caller gets the answer.

Rule 2: what a crash leaves behind is swept by the next supervisor, and is never taken for whole.

Rule 3: files on disk stay readable: names of files, tables, columns and kinds are an interface
between versions.

Reading order:

    state_dir   the directory, its lock, and the sweep after a crash
    database    opens and migrates SQLite files, and reads them beside another process
    writer      group commit: all writes to a database
    registry    functions, aliases, layers and the ledger; its SQL is in registry.sql
    resources   the kinds of things in the registry
    packages    code by its sha256, published by rename
    archives    zips, unpacked or refused
    symlinks    whether the links of a tree stay in it
    logbook     what functions printed, to be read after the response
"""
