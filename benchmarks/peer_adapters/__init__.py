"""Other GAN trainers behind one command line each; these run in the peers' own environment."""
