"""The table of variants: each by the arguments of gatewise.LSTM, every pair, and what does not go together, and why."""

import itertools

SINGLES = {
    "peephole": {"peephole": True},
    "coupled": {"coupled": True},
    "hardsigmoid": {"gate_activation": "hardsigmoid"},
    "step": {"gate_activation": "step"},
    "linear candidate": {"candidate_activation": "linear"},
    "linear cell": {"cell_activation": "linear"},
    "proj_size": {"proj_size": 2},
    "layer norm": {"layer_norm": True},
    "zoneout": {"zoneout": (0.3, 0.6)},
    "recurrent dropout": {"recurrent_dropout": 0.4},
    "variational dropout": {"variational_dropout": 0.4},
    "weight dropout": {"weight_dropout": 0.4},
    "slstm": {"cell": "slstm"},
    "slstm exp": {"cell": "slstm", "gate_activation": "exp"},
}
NOT_IN_AN_SLSTM = {
    "peephole": "peephole is True and cell is 'slstm': its gates see h alone; leave one out",
    "coupled": "coupled is True and cell is 'slstm': its input gate is an exponential, and 1 - i would be below 0",
    "layer norm": "layer_norm is True and cell is 'slstm': c is divided by n instead; leave one out",
    "zoneout": "zoneout is (0.3, 0.6) and cell is 'slstm': c, n and m are one state, of which no part can stay alone",
    "linear cell": "cell_activation is 'linear' and cell is 'slstm': h is o c / n, without a tanh to leave out",
    "hardsigmoid": "gate_activation is 'hardsigmoid' and cell is 'slstm': it takes the logarithm of its forget gate",
    "step": "gate_activation is 'step' and cell is 'slstm': it takes the logarithm of its forget gate; choose sigmoid",
}
ALL_PAIRS = {
    (one, other): SINGLES[one] | SINGLES[other]
    for one, other in itertools.combinations(SINGLES, 2)
    if not SINGLES[one].keys() & SINGLES[other].keys()  # two values of one argument are no pair
}
REFUSED = {pair: options for pair, options in ALL_PAIRS.items() if pair[0] in NOT_IN_AN_SLSTM and "slstm" in pair[1]}
PAIRS = {" + ".join(pair): options for pair, options in ALL_PAIRS.items() if pair not in REFUSED}
CASES = SINGLES | PAIRS


def in_turn(settings):
    """Every variant in each of the settings, and each pair in one of them, in turn, by name."""
    pairs = zip(PAIRS, itertools.cycle(settings), strict=False)
    return [*itertools.product(SINGLES, settings), *pairs]
