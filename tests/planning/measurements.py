"""What networks take and how long they take for it, in round numbers."""

from d3hr.planning.counting import Need, PriorNeeds, StudentNeeds
from d3hr.planning.measure import Timing
from d3hr.planning.probe import Measured

PRIOR = PriorNeeds(network=Need(1000, 10), encoder=Need(200, 40), decoder=Need(300, 50), weights=1_000_000)
STUDENT = StudentNeeds(test=Need(7, 1), training=Need(20, 3))
MEASURED = Measured(
    device="an abacus",
    stand_ins="",
    weights=1_000_000,
    predictions_per_step=1.0,
    read=Timing({1: 0.01, 64: 0.64}),
    encode=Timing({1: 0.1, 64: 6.4}, first=1.0),
    inversion_step=Timing({1: 1.0, 64: 64.0}, first=2.0),
    denoising_step=Timing({10: 10.0}),
    decode=Timing({10: 5.0}),
    search=Timing({1000: 3.0}),
    draw=0.5,
    keep=0.25,
    write=0.1,
    finish=4.0,
    hashing=1e-6,
    one_step=Timing({30: 2.0}),
    three_steps=Timing({30: 4.0}),
    test=Timing({100: 8.0}),
    resident=500,
    peak=10_000,
)
