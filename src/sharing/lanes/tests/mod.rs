//! The machine, driven with simulated time against an upstream in memory.

mod cases;
mod outage;
mod properties;
mod world;
