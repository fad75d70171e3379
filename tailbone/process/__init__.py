"""The log, the signals and the cancellation of the whole process."""
