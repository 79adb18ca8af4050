//! What stands between a client and a server, and counts.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::spawn;

use crate::server::Server;

/// An address that hands on what is sent to it to a server, and back.
pub(crate) struct Relay {
    /// `ws://ADDRESS:PORT`
    pub(crate) url: String,
    /// From the client.
    pub(crate) up: Arc<Counts>,
    /// From the server.
    pub(crate) down: Arc<Counts>,
}

/// What went over the wire in one direction, without the headers of HTTP and TCP.
#[derive(Default)]
pub(crate) struct Counts {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Counts {
    /// Messages and bytes so far.
    pub(crate) fn get(&self) -> [usize; 2] {
        [&self.messages, &self.bytes].map(|count| count.load(Ordering::SeqCst))
    }
}

impl Relay {
    /// To a server, with its messages as they are.
    pub(crate) fn new(server: &Server) -> Self {
        Self::rewriting(server, |_| ())
    }

    /// To a server, until it has sent so many bytes.
    pub(crate) fn until(server: &Server, bytes: usize) -> Self {
        Self::with(server, |_| (), bytes)
    }

    /// To a server, with its messages rewritten.
    pub(crate) fn rewriting(server: &Server, rewrite: fn(&mut [u8])) -> Self {
        Self::with(server, rewrite, usize::MAX)
    }

    fn with(server: &Server, rewrite: fn(&mut [u8]), most: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self {
            url: format!("ws://{}", listener.local_addr().unwrap()),
            up: Arc::default(),
            down: Arc::default(),
        };
        let (server, up, down) = (
            server.address().to_string(),
            relay.up.clone(),
            relay.down.clone(),
        );
        spawn(move || {
            for client in listener.incoming() {
                let [client, server] = [client.unwrap(), TcpStream::connect(&server).unwrap()];
                for end in [&client, &server] {
                    end.set_nodelay(true).unwrap();
                }
                let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let (up, down) = (up.clone(), down.clone());
                spawn(move || relay_all(client, server, &up, |_| (), usize::MAX));
                spawn(move || relay_all(from, to, &down, rewrite, most));
            }
        });
        relay
    }
}

fn relay_all(
    from: TcpStream,
    mut to: TcpStream,
    counts: &Counts,
    rewrite: fn(&mut [u8]),
    most: usize,
) {
    // What ends a connection at one end, ends it at the other.
    let _ = relay_messages(&mut BufReader::new(&from), &mut to, counts, rewrite, most);
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// An HTTP header, then the frames of a WebSocket (RFC 6455, 5.2).
fn relay_messages(
    from: &mut impl BufRead,
    to: &mut TcpStream,
    counts: &Counts,
    rewrite: fn(&mut [u8]),
    most: usize,
) -> io::Result<()> {
    let mut header = Vec::new();
    while !header.ends_with(b"\r\n\r\n") {
        if from.read_until(b'\n', &mut header)? == 0 {
            return Ok(());
        }
    }
    to.write_all(&header)?;
    loop {
        let mut frame = vec![0; 2];
        from.read_exact(&mut frame)?;
        let masked = frame[1] & 0x80 != 0;
        let wide = match frame[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        frame.resize(2 + wide, 0);
        from.read_exact(&mut frame[2..])?;
        let length = match wide {
            0 => usize::from(frame[1] & 0x7f),
            _ => (frame[2..].iter()).fold(0, |length, byte| length << 8 | usize::from(*byte)),
        };
        let payload = frame.len() + if masked { 4 } else { 0 };
        frame.resize(payload + length, 0);
        let header = 2 + wide;
        from.read_exact(&mut frame[header..])?;
        if !masked {
            rewrite(&mut frame[payload..]);
        }
        // Of the opcodes, 2 is data, and 8 and above keep the connection. Counted before anybody can know of it.
        if frame[0] & 0x0f == 2 {
            counts.messages.fetch_add(1, Ordering::SeqCst);
            counts.bytes.fetch_add(frame.len(), Ordering::SeqCst);
        }
        if counts.get()[1] > most {
            return Ok(());
        }
        to.write_all(&frame)?;
    }
}
