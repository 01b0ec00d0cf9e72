"""`python -m mcts_dpo` and `torchrun -m mcts_dpo`: the same as the console script."""

from mcts_dpo.cli.app import main

if __name__ == "__main__":
    main()
