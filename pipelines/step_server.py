"""Imported first by the process from which the steps of a run are forked.

It ends by itself when the run's process does. A signal to the whole group, as of `gan-foundry ui`
that ends, must not end it before: the run would take its steps for crashed while they save their
work. The steps hear of the signal themselves: Dagster sets their handlers anew.
"""

import signal

from gan_core.idle_threads import let_idle_threads_sleep

let_idle_threads_sleep()  # before torch is imported, for all steps
signal.signal(signal.SIGTERM, signal.SIG_IGN)
