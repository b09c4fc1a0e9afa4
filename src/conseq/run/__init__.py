"""From a log and an experiment to a judged model in a folder."""
