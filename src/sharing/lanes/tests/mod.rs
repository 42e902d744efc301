//! The machine, driven with simulated time against an upstream in memory.

mod cases;
mod deadlines;
mod outage;
mod properties;
mod world;
