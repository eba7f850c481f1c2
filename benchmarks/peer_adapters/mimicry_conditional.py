"""cGAN-PD of torch-mimicry: its conditional SNGAN."""

from benchmarks.peer_adapters.mimicry import main

if __name__ == "__main__":
    main(conditional=True)
