"""The stages of a pipeline, one module each: thin functions around `gan_core`."""
