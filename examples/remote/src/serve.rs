//! The machine that computes.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};

use anyhow::Context;
use burn::server::{RemoteServer, WebSocketTransport};
use example_common::Backend;

/// Computes for trainings on other machines, until it is stopped.
///
/// The connection is neither encrypted nor authenticated: leave the address to the loopback device and reach it through
/// `ssh -L`, or choose one of a network that you trust.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where to wait for them; the system chooses a port for 0
    #[arg(long, default_value = "127.0.0.1:3000")]
    address: SocketAddr,
    /// What computes
    #[arg(long, value_enum, default_value = "flex")]
    backend: Backend,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let device = options.backend.device()?;
    let listener = TcpListener::bind(options.address)
        .with_context(|| format!("cannot wait at {}", options.address))?;
    println!("ws://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    RemoteServer::new([device]).serve(WebSocketTransport::from_listener(listener))?;
    Ok(())
}
