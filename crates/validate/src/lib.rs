#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

pub mod checks;
pub mod failure;
pub mod histogram;
pub mod load;
pub mod profile;
pub mod protocol;
pub mod report;
pub mod runs;
pub mod subject;
pub mod target;
pub mod usage;
pub mod verdict;

mod link;
