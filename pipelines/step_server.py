"""Imported first by the process from which the steps of a run are forked.

It ends by itself when the run's process does. A signal to the whole group, as of `gan-foundry ui`
that ends, must not end it before: the run would take its steps for crashed while they save their
work. The steps hear of the signal themselves: Dagster sets their handlers anew.
"""

import os
import signal

from gan_core.idle_threads import give_way_to_other_programs

os.register_at_fork(after_in_child=give_way_to_other_programs)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
