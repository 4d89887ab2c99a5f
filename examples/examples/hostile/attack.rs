//! What is sent on one connection, and how.

use crate::call::Call;
use crate::dice::Dice;
use crate::good::Good;
use crate::{blind, frames, request};

/// One visit of a hostile client.
#[derive(Debug)]
pub(crate) enum Attack {
    /// Bytes on a connection of their own.
    Bytes(Raw),
    /// A call over HTTP/2 that is well made, on a kept connection, with something wrong in it.
    Call(Call),
}

/// Who listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    Http,
    Grpc,
    Metrics,
    Admin,
}

#[derive(Debug)]
pub(crate) struct Raw {
    pub listener: Listener,
    pub bytes: Vec<u8>,
    pub manner: Manner,
    /// Answers that have to come unless the connection is closed: there are so many whole requests in it.
    pub answers: usize,
}

/// How the client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Sends everything, and waits for what comes.
    Waits,
    /// Sends it in pieces, cut where nobody would.
    Pieces,
    /// Says that it will send no more as soon as it has sent everything, and waits.
    HalfCloses,
    /// Closes without having read anything.
    Leaves,
}

impl Attack {
    /// The attack of this number: of even numbers structured ones, of odd ones blind ones.
    pub(crate) fn draw(good: &Good, dice: &mut Dice, number: u64) -> Self {
        let manner = match dice.below(16) {
            0 => Manner::Leaves,
            1 => Manner::HalfCloses,
            2 | 3 => Manner::Pieces,
            _ => Manner::Waits,
        };
        let (listener, bytes, mut answers) = match number % 2 {
            0 => match dice.below(12) {
                0 | 1 => return Self::Call(Call::draw(good, dice)),
                2 => {
                    let (bytes, is_whole) = frames::draw(&good.message, dice);
                    (Listener::Grpc, bytes, usize::from(is_whole))
                }
                _ => request::draw(good, dice),
            },
            _ => {
                let (listener, bytes) = blind::draw(good, dice);
                let is_whole = listener != Listener::Grpc && blind::is_whole(&bytes);
                (listener, bytes, usize::from(is_whole))
            }
        };
        if matches!(manner, Manner::HalfCloses | Manner::Leaves) {
            answers = 0;
        }
        Self::Bytes(Raw { listener, bytes, manner, answers })
    }
}
