//! What can be wrong with Redis, how it is made, and how it is mended.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use crate::proxy::{Passage, Proxy};
use crate::redis::{Cluster, Node, Watched};

/// A state that Redis is in for a part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is wrong.
    None,
    /// The process is killed, and started again empty.
    Killed,
    /// The process is stopped, and goes on.
    Paused,
    /// Every answer is half a second late.
    Slow,
    /// Memory is full, and nothing is evicted.
    Full,
    /// Values are not what was written.
    Corrupt,
    /// The primary under Sentinel's watch dies.
    Failover,
    /// A primary of a cluster dies.
    ClusterFailover,
    /// Slots of a cluster move.
    Reshard,
}

/// A Redis in which a fault can be made.
pub(crate) enum Site {
    Single { fault: Fault, node: Node, proxy: Proxy },
    Watched(Watched),
    Cluster { fault: Fault, cluster: Cluster, dead: Option<usize> },
}

impl Fault {
    pub(crate) const ALL: [Self; 9] = [
        Self::None,
        Self::Killed,
        Self::Paused,
        Self::Slow,
        Self::Full,
        Self::Corrupt,
        Self::Failover,
        Self::ClusterFailover,
        Self::Reshard,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "well",
            Self::Killed => "killed",
            Self::Paused => "paused",
            Self::Slow => "slow",
            Self::Full => "full",
            Self::Corrupt => "corrupt",
            Self::Failover => "sentinel",
            Self::ClusterFailover => "cluster",
            Self::Reshard => "reshard",
        }
    }

    pub(crate) fn prepare(self) -> Result<Site, Box<dyn Error>> {
        Ok(match self {
            Self::Failover => Site::Watched(Watched::start()?),
            Self::ClusterFailover | Self::Reshard => {
                Site::Cluster { fault: self, cluster: Cluster::start()?, dead: None }
            }
            _ => {
                let node = Node::start(&[])?;
                let proxy = Proxy::before(node.address)?;
                Site::Single { fault: self, node, proxy }
            }
        })
    }
}

impl Site {
    /// What the server must be told to use it.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let url = match self {
            Self::Single { proxy, .. } => format!("redis://{}", proxy.address),
            Self::Watched(Watched { sentinels, .. }) => {
                let others: Vec<String> =
                    sentinels[1..].iter().map(|sentinel| format!("node={}", sentinel.address)).collect();
                format!("redis-sentinel://{}?{}&sentinelServiceName=volley", sentinels[0].address, others.join("&"))
            }
            Self::Cluster { cluster, .. } => {
                let others: Vec<String> =
                    cluster.nodes[1..].iter().map(|node| format!("node={}", node.address)).collect();
                format!("redis-cluster://{}?{}", cluster.nodes[0].address, others.join("&"))
            }
        };
        vec![("VOLLEY_CACHE__REDIS__URL", url), ("VOLLEY_CACHE__SECRET", "07".repeat(32))]
    }

    /// Makes the fault, and returns when it has lasted for `lasting`.
    pub(crate) fn make(&mut self, lasting: Duration) -> Result<(), Box<dyn Error>> {
        let until = Instant::now() + lasting;
        match self {
            Self::Single { fault, node, proxy } => match fault {
                Fault::Killed => node.kill(),
                Fault::Paused => node.signal("STOP")?,
                Fault::Slow => proxy.set(Passage::Slow(Duration::from_millis(500))),
                Fault::Full => _ = node.ask(&["CONFIG", "SET", "maxmemory", "1"])?,
                Fault::Corrupt => {
                    while Instant::now() < until {
                        node.ask(&["EVAL", SPOIL_VALUES, "0"])?;
                        thread::sleep(Duration::from_millis(50));
                    }
                }
                _ => {}
            },
            Self::Watched(watched) => watched.primary.kill(),
            Self::Cluster { fault: Fault::Reshard, cluster, .. } => cluster.reshard()?,
            Self::Cluster { cluster, dead, .. } => {
                let primary = cluster.primary()?;
                cluster.nodes[primary].kill();
                *dead = Some(primary);
            }
        }
        thread::sleep(until.saturating_duration_since(Instant::now()));
        Ok(())
    }

    /// Makes everything well again.
    pub(crate) fn mend(&mut self) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Single { fault, node, proxy } => match fault {
                Fault::Killed => node.restart(),
                Fault::Paused => node.signal("CONT"),
                Fault::Slow => {
                    proxy.set(Passage::Open);
                    Ok(())
                }
                Fault::Full => node.ask(&["CONFIG", "SET", "maxmemory", "0"]).map(drop),
                _ => Ok(()),
            },
            Self::Watched(watched) => watched.primary.restart(),
            Self::Cluster { cluster, dead, .. } => match dead.take() {
                Some(dead) => cluster.nodes[dead].restart(),
                None => Ok(()),
            },
        }
    }
}

/// Overwrites the end of every value.
const SPOIL_VALUES: &str = "for _, key in ipairs(redis.call('KEYS', '*')) do \
    if redis.call('TYPE', key).ok == 'string' then redis.call('SETRANGE', key, redis.call('STRLEN', key) - 3, 'XYZ') end \
    end";
