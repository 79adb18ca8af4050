//! A server in a process of its own.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::spawn;

use burn::remote::RemoteHost;
use burn::tensor::Device;

/// A process of this example that serves a device. It ends with this.
pub(crate) struct Server {
    process: Child,
    /// `ws://ADDRESS:PORT`
    pub(crate) url: String,
}

impl Server {
    /// With flex, at a port that the system chooses.
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    /// With flex, at `ADDRESS:PORT`.
    pub(crate) fn start_at(address: &str) -> Self {
        Self::start_with(address, "flex")
    }

    /// With another backend.
    pub(crate) fn start_with(address: &str, backend: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_remote"))
            .args(["serve", "--address", address, "--backend", backend])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut url = String::new();
        output.read_line(&mut url).unwrap();
        let url = url.trim_end().to_string();
        // Its log: a pipe that is full would stop it.
        spawn(move || io::copy(&mut output, &mut io::sink()));
        assert!(url.starts_with("ws://127.0.0.1:"), "{url:?}");
        Self { process, url }
    }

    /// `ADDRESS:PORT`
    pub(crate) fn address(&self) -> &str {
        &self.url["ws://".len()..]
    }

    /// With autodiff.
    pub(crate) fn device(&self) -> Device {
        device(&self.url)
    }

    /// At once, in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The device that a server offers, with autodiff.
pub(crate) fn device(url: &str) -> Device {
    let device = Device::remote_options(&RemoteHost::websocket(url)).init();
    device.unwrap().autodiff()
}
