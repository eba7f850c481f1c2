"""Imported first by the process from which the steps of a run are forked.

It ends by itself when the run's process does. A signal to the whole group, as of `gan-foundry ui`
that ends, must not end it before: the run would take its steps for crashed while they save their
work. The steps hear of the signal themselves: Dagster sets their handlers anew.
"""

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
