//! SAM on devices of other machines, through Burn's remote devices: a server, and a training that uses it.

mod serve;
mod train;

use clap::Parser;
use mimalloc::MiMalloc;

/// Passes on a CPU take as little as half of the time with it: see docs/guide.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Trains on devices of other machines.
#[derive(Parser)]
enum Command {
    Serve(serve::Options),
    Train(train::Options),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Serve(options) => serve::run(&options),
        Command::Train(options) => train::run(&options),
    }
}
