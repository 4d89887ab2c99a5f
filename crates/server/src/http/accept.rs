//! Taking in connections, of whatever protocol, and leaving without losing one that was taken in.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::gate::{Arrival, Gate};
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
    // Whose connection waits may have sent a request on it already. The system's word on that, not the runtime's, which
    // may be old; and no more than could wait, or those who keep coming would keep the server.
    let listener = listener.into_std()?;
    for _ in 0..BACKLOG {
        let Ok((stream, address)) = listener.accept() else { break };
        stream.set_nonblocking(true)?;
        take_in(TcpStream::from_std(stream)?, address);
    }
    drop(listener);
    let _ = phase.wait_for(|phase| *phase == Phase::Closing).await;
    connections.shutdown().await;
    Ok(())
}
