//! A TCP proxy on the loopback interface, by which a replica is cut off from Redis, or Redis made slow.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// Forwards connections to a port. Its threads end with the connections, and the last with the process.
pub(crate) struct Proxy {
    port: u16,
    traffic: Arc<Traffic>,
}

#[derive(Default)]
struct Traffic {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Connections are closed, new ones at once.
    cut: bool,
    /// Nothing passes; what comes waits.
    stalled: bool,
    delay: Duration,
    streams: Vec<TcpStream>,
}

impl Proxy {
    pub(crate) fn start(to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let traffic = Arc::new(Traffic::default());
        let theirs = Arc::clone(&traffic);
        spawn(move || {
            for client in listener.incoming().flatten() {
                // A connection that fails is one that was cut.
                _ = theirs.connect(client, to);
            }
        });
        Self { port, traffic }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Closes all connections, and new ones at once.
    pub(crate) fn cut(&self) {
        let mut state = self.traffic.state();
        state.cut = true;
        for stream in state.streams.drain(..) {
            // It may be closed already.
            _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Keeps connections open, and passes nothing on.
    pub(crate) fn stall(&self) {
        self.traffic.state().stalled = true;
    }

    /// Passes on what comes after `delay`, in either direction.
    pub(crate) fn delay(&self, delay: Duration) {
        self.traffic.state().delay = delay;
    }

    /// Undoes all that.
    pub(crate) fn resume(&self) {
        let mut state = self.traffic.state();
        (state.cut, state.stalled, state.delay) = (false, false, Duration::ZERO);
        self.traffic.changed.notify_all();
    }
}

impl Traffic {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the lock")
    }

    fn connect(self: &Arc<Self>, client: TcpStream, to: u16) -> std::io::Result<()> {
        let mut state = self.state();
        if state.cut {
            return Ok(());
        }
        let server = TcpStream::connect(("127.0.0.1", to))?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            state.streams.push(stream.try_clone()?);
        }
        self.pass(client.try_clone()?, server.try_clone()?);
        self.pass(server, client);
        Ok(())
    }

    /// Reads on one thread and writes on another, so that a delay holds up each byte by as much and no more.
    fn pass(self: &Arc<Self>, mut from: TcpStream, to: TcpStream) {
        let (read, written) = channel();
        let writers = Arc::clone(self);
        spawn(move || writers.write(&written, to));
        let readers = Arc::clone(self);
        spawn(move || readers.read(&mut from, &read));
    }

    fn read(&self, from: &mut TcpStream, read: &Sender<(Instant, Vec<u8>)>) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(bytes @ 1..) = from.read(&mut buffer) {
            let due = Instant::now() + self.state().delay;
            if read.send((due, buffer[..bytes].to_vec())).is_err() {
                return;
            }
        }
    }

    fn write(&self, written: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
        while let Ok((due, bytes)) = written.recv() {
            sleep(due.saturating_duration_since(Instant::now()));
            drop(self.changed.wait_while(self.state(), |state| state.stalled));
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
        // The other end may be closed already.
        _ = to.shutdown(Shutdown::Both);
    }
}
