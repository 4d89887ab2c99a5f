//! A TCP proxy on the loopback interface that can delay what a server says, or cut everybody off.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// What happens to what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// It passes.
    Open,
    /// Each answer is held back for so long.
    Slow(Duration),
    /// Nothing passes, and connections are closed.
    Cut,
}

/// A proxy before one server. Its threads end with their connections.
pub(crate) struct Proxy {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    passage: Passage,
    connections: Vec<TcpStream>,
}

impl Proxy {
    pub(crate) fn before(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State { passage: Passage::Open, connections: Vec::new() }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Dropped, and so closed, if there is no way through.
                let _ = connect(client, server, &shared);
            }
        });
        Ok(Self { address, state })
    }

    pub(crate) fn set(&self, passage: Passage) {
        let mut state = lock(&self.state);
        state.passage = passage;
        if passage == Passage::Cut {
            for connection in state.connections.drain(..) {
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
    }
}

fn connect(client: TcpStream, server: SocketAddr, shared: &Arc<Mutex<State>>) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    {
        let mut state = lock(shared);
        if state.passage == Passage::Cut {
            return Ok(());
        }
        state.connections.extend([client.try_clone()?, server.try_clone()?]);
    }
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    thread::spawn(move || pass(from_client, to_server, || Duration::ZERO));
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        pass(server, client, || match lock(&shared).passage {
            Passage::Slow(delay) => delay,
            Passage::Open | Passage::Cut => Duration::ZERO,
        });
    });
    Ok(())
}

fn pass(mut from: TcpStream, mut to: TcpStream, delay: impl Fn() -> Duration) {
    let mut buffer = [0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        thread::sleep(delay());
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
