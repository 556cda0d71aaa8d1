"""What --help says above the options, where no class of options says it."""

from gatewise.bench.config import VARIANTS
from gatewise.insight.doctor.findings import CODES

FOUND = "\n".join(f"  {code:<25} {says}" for code, says in CODES.items() if code != "no-gradient")
"""What the source shows; a parameter without a gradient is seen in a live model only."""

DESCRIPTION = """Train, evaluate and use LSTMs on sequences.

Example:
  gatewise train digits --run runs/digits   (about half a minute, nothing is fetched)
  gatewise evaluate runs/digits
  gatewise predict runs/digits image.png
  gatewise inspect runs/digits              (a page to look into it: curves, mistakes, gates, gradients)

  gatewise tune digits --trials 30          (search for settings)
  gatewise memory                           (how far back do an SRN and an LSTM remember?)
  gatewise doctor train.py                  (mistakes with sequences, without running the file)
  gatewise bench --quick                    (beside torch.nn.LSTM)

gatewise COMMAND --help says more, gatewise --version which version this is."""

TRAIN = """Train a model for one of the tasks below, each with a recipe as its defaults.

A run folder keeps the settings (config.toml), the metrics (metrics.jsonl), two checkpoints, the best and the last
weights (safetensors) and a figure (curves.png). Ctrl-C and SIGTERM end a training after the step under way; gatewise
resume goes on with it, as it does after a kill -9, a full disk or a power cut.

Example:
  gatewise train digits --run runs/digits
  gatewise train mnist --data mnist/ --epochs 3 --seed 1
  gatewise train images --data photos/ --size 32 32   (a folder for each class in photos/)
  gatewise train digit-sum --recipe remember --length 100
  gatewise train series --data load.csv --target kw --time at --window 48 --horizon 12   (forecast a column)
  gatewise train text --data book.txt   (learn a text, character by character)
  gatewise train sequences --data taps.csv --id tap --step at --target who   (label sequences of different length)
  gatewise train digits --config runs/digits/config.toml --seed 1

gatewise train TASK --help lists a task's settings."""

TUNE = """Search for settings of a task: many trainings, each with other settings, the promising ones to their end.

All options of gatewise train TASK are there, for what is the same in all trials; --search names what is not. A trial is
good if its dev split comes to a low loss or a high accuracy (--best-by); the test split is looked at once, in the end,
with the best trial's weights. The first trial is the recipe, if it lies in what is searched; the next ones are drawn,
later ones where earlier ones were good (Optuna's TPE). With one layer, dropout is 0.

Each trial is a run folder. After Ctrl-C, a kill -9 or a power cut the same command goes on, trials under way from their
checkpoints. In the end there are a table of the best, best.toml and three figures (history.png, slices.png,
importances.png).

Example:
  gatewise tune digits --trials 30
  gatewise tune digits --epochs 20 --search learning_rate=1e-4..1e-1:log batch_size=16,32,64 dropout=0..0.5:0.1
  gatewise tune mnist --data mnist/ --dev-fraction 0.1 --best-by accuracy --trials 20 --run runs/search
  gatewise train digits --config runs/tune-digits/best.toml

gatewise tune TASK --help lists everything."""

TUNE_TASK = """Search for settings of {0}: {1}

Example:
  gatewise tune {0} --search hidden_size=32..256:32 learning_rate=1e-4..1e-2:log optimizer=adam,sgd --trials 30"""

DOCTOR = f"""Look for mistakes with sequences in Python source, which is read and never run.

Each finding is a line with its place, its code and why it is one, and the code that mends it:
{FOUND}

Example:
  gatewise doctor train.py
  gatewise doctor package.model
  gatewise doctor . --json

The exit status is 0 if nothing was found, 1 if something was, and 2 if there is no such file or one cannot be read."""

BENCH = f"""Time gatewise.LSTM beside its peers over a grid of sizes, in one process, in turns.

All outputs and gradients are compared before anything is timed. The times of a machine that others use are worth
little; the ratios within a run are worth more.

With --variants a training step of changed cells: over that of gatewise's plain cell, and the same cell as a loop in
Python over gatewise's; --sizes all is 8,20,32,32,1 and 64,100,128,128,1. There are
{", ".join(VARIANTS[:9])},
{", ".join(VARIANTS[9:])}.

Example:
  gatewise bench --quick                    (seconds: shows that it works, not how fast it is)
  gatewise bench --sizes 1 2 8,100,64,128,1 --kinds training
  gatewise bench --variants all             (or some: --variants peephole+coupled layer-norm)
  gatewise bench --peers all --forms all --malloc both --json bench.json --figure bench.png"""
