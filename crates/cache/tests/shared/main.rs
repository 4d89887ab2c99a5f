//! Replicas that share a tier in a real Redis: one server, Sentinel, a cluster; in order, away, slow, full, lying.

mod cluster;
mod coherence;
mod faults;
mod one_server;
mod proxy;
mod redis;
mod replica;
mod sentinel;
