//! SAM on remote devices, each served by a process of its own on the loopback device.

mod devices;
mod faults;
mod relay;
mod server;
mod traffic;
mod training;
