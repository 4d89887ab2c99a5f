//! The clients that speak to Redis.

use super::config::SharedSettings;
use fred::clients::{Client, WithOptions};
use fred::interfaces::ClientLike;
use fred::types::config::{
    ConnectionConfig, Options, PerformanceConfig, ReconnectPolicy, TcpConfig, UnresponsiveConfig,
};
use std::time::Duration;

/// After this a command that is not a look-up has failed: polls, invalidations, batches of writes.
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection on which an answer is overdue for this long is given up: a paused server keeps its sockets open, and so
/// does a host that is gone.
const UNRESPONSIVE: Duration = Duration::from_secs(2);

/// Commands that wait for a connection at most; breakers let far fewer come to that.
const MOST_WAITING: usize = 10_000;

/// A client of its own connections, not yet connected.
///
/// Look-ups and invalidations have one and writes another, so that a large value on its way out holds up nobody. No
/// command is sent twice: whoever waits for it would rather not.
pub(super) fn client(settings: &SharedSettings) -> Client {
    let performance = PerformanceConfig { default_command_timeout: COMMAND_TIMEOUT, ..PerformanceConfig::default() };
    let connection = ConnectionConfig {
        connection_timeout: COMMAND_TIMEOUT,
        internal_command_timeout: COMMAND_TIMEOUT,
        max_command_attempts: 1,
        max_command_buffer_len: MOST_WAITING,
        unresponsive: UnresponsiveConfig { max_timeout: Some(UNRESPONSIVE), interval: UNRESPONSIVE / 4 },
        tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
        ..ConnectionConfig::default()
    };
    let mut reconnect = ReconnectPolicy::new_exponential(0, 50, 1000, 2);
    reconnect.set_jitter(50);
    Client::new(settings.servers.clone(), Some(performance), Some(connection), Some(reconnect))
}

/// The client for a command that fails after `timeout`, and at once where there is no connection.
pub(super) fn within(client: &Client, timeout: Duration) -> WithOptions<Client> {
    client.with_options(&Options {
        timeout: Some(timeout),
        max_attempts: Some(1),
        fail_fast: true,
        ..Options::default()
    })
}

/// Connects `client`, and again for ever: fred does so by itself, but for servers that are not of the kind it was told,
/// which may be so for a moment while a cluster is set up.
pub(super) async fn keep_connected(client: Client) {
    loop {
        // Whatever ended it shows in the client's state; there is nobody to tell more.
        _ = client.connect().await;
        tokio::time::sleep(COMMAND_TIMEOUT).await;
    }
}
