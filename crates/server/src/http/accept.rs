//! Taking in connections, of whatever protocol, and leaving without losing one that was taken in.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::gate::{Arrival, Gate, Stream};
use super::listener::Phase;

/// How many connections may wait to be accepted; the system may allow fewer. Callers who find no place try again a second
/// later, which after a standstill would be most.
pub(crate) const BACKLOG: i32 = 4096;

/// How long to hold back after the system refused a connection, for want of file descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Has every connection to `listener` for which `gate` has a place served by `serve`, which is not to wait for it, until
/// `phase` says to leave; returns when all of them are closed, which they are told once the phase is [`Phase::Closing`].
///
/// # Errors
/// When the listener cannot be used.
pub(crate) async fn accept(
    listener: TcpListener,
    gate: &Gate,
    mut phase: watch::Receiver<Phase>,
    serve: impl Fn(Arrival, Watcher),
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let connections = GracefulShutdown::new();
    let take_in = |stream, address| {
        if let Some(arrival) = gate.enter(stream, address) {
            serve(arrival, connections.watcher());
        }
    };
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => take_in(stream, address),
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = accepting => {}
        _ = phase.wait_for(|phase| *phase > Phase::Serving) => {}
    }
    // Those that were taken in are answered whatever becomes of those that wait.
    if let Err(error) = take_in_waiting(listener, take_in) {
        tracing::warn!(%error, "could not accept the connections that waited");
    }
    let _ = phase.wait_for(|phase| *phase == Phase::Closing).await;
    connections.shutdown().await;
    Ok(())
}

/// Takes in the connections that wait to be accepted, and lets nobody wait any more: a caller may have sent a request on one
/// already.
///
/// No more than could wait, or those who keep coming would keep the server.
fn take_in_waiting(listener: tokio::net::TcpListener, take_in: impl Fn(TcpStream, SocketAddr)) -> io::Result<()> {
    // The system is asked, not the runtime, which may not have heard of them yet.
    let listener = listener.into_std()?;
    for _ in 0..BACKLOG {
        let (stream, address) = match listener.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            accepted => accepted?,
        };
        stream.set_nonblocking(true)?;
        take_in(TcpStream::from_std(stream)?, address);
    }
    Ok(())
}

/// Waits until a connection that was silent so far says something. False if it does not within `patience`, or has not when
/// the phase comes to be [`Phase::Closing`].
pub(crate) async fn speaks(stream: &Stream, patience: Duration, phase: &mut watch::Receiver<Phase>) -> bool {
    tokio::select! {
        biased;
        spoke = tokio::time::timeout(patience, stream.first_byte()) => matches!(spoke, Ok(Ok(()))),
        // The system is asked again, for the runtime may not have heard of it yet.
        _ = phase.wait_for(|phase| *phase == Phase::Closing) => stream.has_byte(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::http::gate::open_gate;

    #[tokio::test]
    async fn connections_that_wait_when_the_server_leaves_are_taken_in() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let _callers = [(); 3].map(|()| std::net::TcpStream::connect(address).expect("there is room for three"));
        let (_leaving, phase) = watch::channel(Phase::Closing);
        let (gate, taken_in) = (open_gate(), Cell::new(0));
        accept(listener, &gate, phase, |_, _| taken_in.set(taken_in.get() + 1)).await.expect("it can be served");
        assert_eq!(taken_in.get(), 3);
        assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
    }

    #[tokio::test]
    async fn those_who_keep_coming_do_not_keep_a_server_that_leaves() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let come = || drop(std::net::TcpStream::connect(address).expect("somebody listens"));
        come();
        let (_leaving, phase) = watch::channel(Phase::Closing);
        let (gate, taken_in) = (open_gate(), Cell::new(0));
        let leave = accept(listener, &gate, phase, |_, _| {
            taken_in.set(taken_in.get() + 1);
            assert!(taken_in.get() <= BACKLOG, "it never ends");
            come();
        });
        leave.await.expect("it can be served");
        assert_eq!(taken_in.get(), BACKLOG);
    }
}
