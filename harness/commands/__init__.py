"""The commands, one file each: ``add`` declares the flags, ``execute`` does the work and imports what is heavy."""
