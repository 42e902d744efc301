//! The machine, driven with simulated time against an upstream in memory.

mod cases;
mod deadlines;
mod judge;
mod locks;
mod outage;
mod properties;
mod replicas;
mod upstream;
mod world;
